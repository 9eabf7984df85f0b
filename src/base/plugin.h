/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where a program finds its modules. Thread: any. */
#pragma once

/* The file beside the program (a build folder), else in the folder that modules are installed in. For g_free(). */
char *plugin_path(const char *installed_dir, const char *file);
