/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Programs of the host, and which package has one that is missing, in the words of the
 * distribution.
 *
 * Thread    Any; looks at files.
 */
#pragma once

#include "manager/error.h"

/* Its path; NULL: it is not installed. The caller's. */
char *package_find_program(const char *name);
/* "program 'x' is missing; install it with: apt install y"; NULL: it is there. The caller's. */
char *package_advice(const char *program);
