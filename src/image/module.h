/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Drivers that are loaded when used: their libraries are large, or rare.
 *
 * Thread    The main thread.
 */
#pragma once

#include "base/error.h"

struct image_driver;

/* A module comes with a driver of that name. */
bool module_known(const char *name);
/* The module's name for a URL scheme, or NULL. */
const char *module_of_scheme(const char *scheme);
/* False with a sentence that names the package. */
bool module_load(const char *name, GError **error);
/* image-FILE.so, for dlsym(3); NULL: dlerror(3) says why. */
void *module_open(const char *file);
/* Of a loaded module; NULL: none of that name. */
const struct image_driver *module_driver(const char *name);
