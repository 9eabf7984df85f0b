/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Modules. See plugin.h. */
#include "base/plugin.h"

#include <glib.h>
#include <unistd.h>

char *plugin_path(const char *installed_dir, const char *file)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *folder = self ? g_path_get_dirname(self) : g_strdup(".");
    g_autofree char *beside = g_build_filename(folder, file, NULL);
    return access(beside, R_OK) == 0 ? g_steal_pointer(&beside) : g_build_filename(installed_dir, file, NULL);
}
