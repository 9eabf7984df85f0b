/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What tests with peers ask for: each file named is defined, and its canonical text printed, or the
 * reason why it is refused. Texts end with a zero byte, so that one run answers for many files.
 *
 * --validate refuses what is not known; --live keeps what belongs to a running machine.
 */
#include "manager/domain/def.h"
#include "manager/manager.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    unsigned flags = 0;
    manager.vmm = g_strdup("/usr/bin/ruche-vmm");
    for (int i = 1; i < argc; i++) {
        g_autofree char *text = NULL;
        g_autoptr(GError) error = NULL;
        size_t len;
        if (!strcmp(argv[i], "--validate") || !strcmp(argv[i], "--live")) {
            flags |= argv[i][2] == 'v' ? DEF_VALIDATE : DEF_LIVE;
            continue;
        }
        if (!g_file_get_contents(argv[i], &text, &len, &error)) {
            g_printerr("%s\n", error->message);
            return 1;
        }
        auto_domain_def *def = domain_def_parse(text, len, flags, &error);
        printf("%s%c", def ? def->text : error->message, 0);
    }
    return 0;
}
