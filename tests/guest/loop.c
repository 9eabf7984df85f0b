/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bench/vmm.py's integer loop: "rounds=N" times LOOP_INSTRUCTIONS instructions: loads, stores, arithmetic, shifts, a
 * conditional move, a call with its return, branches taken and not taken. The host measures two counts and takes
 * the difference, so that start-up does not count.
 */
#include "lib/guest.h"

#define LOOP_INSTRUCTIONS 20

static uint64_t table[1024];

static uint64_t run(uint64_t rounds)
{
    uint64_t sum = 0, index = 0, mix = 0x9e3779b97f4a7c15, tmp;
    __asm__ volatile("jmp 1f\n"
                     "2: rol $7, %[mix]\n"              /* called: 2 */
                     "ret\n"
                     ".p2align 4\n"
                     "1: mov (%[table],%[index],8), %[tmp]\n" /* 18 */
                     "add %[tmp], %[sum]\n"
                     "xor %[sum], %[mix]\n"
                     "lea 1(%[index]), %[index]\n"
                     "and $1023, %[index]\n"
                     "mov %[mix], %[tmp]\n"
                     "shr $13, %[tmp]\n"
                     "call 2b\n"
                     "cmp %[tmp], %[sum]\n"
                     "cmovb %[tmp], %[sum]\n"
                     "mov %[sum], (%[table],%[index],8)\n"
                     "movzbl %b[mix], %k[tmp]\n"
                     "test %[index], %[index]\n"
                     "js 3f\n"
                     "lea 0x1357(%[mix],%[tmp],2), %[mix]\n"
                     "imul $3, %[tmp], %[tmp]\n"
                     "3: dec %[rounds]\n"
                     "jnz 1b\n"
                     : [sum] "+r"(sum), [index] "+r"(index), [mix] "+r"(mix), [tmp] "=&r"(tmp),
                       [rounds] "+r"(rounds)
                     : [table] "r"(table)
                     : "memory", "cc");
    return sum ^ mix;
}

void test_main(void)
{
    uint64_t rounds = cmdline_number("rounds", 1000);
    uint64_t result = run(rounds);
    print("instructions=%lu result=%lx\n", rounds * LOOP_INSTRUCTIONS, result);
    check(result != 0, "the loop ran");
}
