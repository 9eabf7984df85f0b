/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The smallest payload: a line, the command line, an exit status that the command line chooses
 * ("exit=N"). */
#include "lib/guest.h"

void test_main(void)
{
    print("hello from the guest\n");
    print("command line: %s\n", cmdline());
    uint64_t code = cmdline_number("exit", ~0ull);
    if (code != ~0ull)
        exit_machine((int)code);
    check(true, "reached the end");
}
