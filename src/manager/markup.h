/* SPDX-License-Identifier: GPL-2.0-or-later */
/* XML that is only ever written: lines put behind each other, every argument escaped.
 *
 * Thread    Any.
 */
#pragma once

#include <glib.h>

/* printf, but what %s inserts is escaped for text and for attributes in either quote. The format is
 * not, and brings its own indentation and line feeds. */
void markup_add(GString *b, const char *format, ...) G_GNUC_PRINTF(2, 3);
