/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the XML tree share: nodes of strings that may end without a zero byte. See xml.h. */
#pragma once

#include "base/xml.h"

struct xml_node *xml_new_element(const char *name, size_t len);
struct xml_node *xml_new_text(const char *text, size_t len);
struct xml_attr *xml_new_attr(const char *name, size_t len, const char *value);

struct xml_ns *xml_ns_new(const char *prefix, const char *uri); /* one reference, the caller's */
struct xml_ns *xml_ns_ref(struct xml_ns *ns);                   /* NULL is fine, here and below */
void xml_ns_unref(struct xml_ns *ns);
struct xml_decl *xml_decl_new(struct xml_ns *ns); /* with a reference of its own */
void xml_free_declared(struct xml_decl *first);   /* and all behind it */
