/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The decoder on any bytes in any mode: never reads past the end (each input is decoded from a copy of its exact
 * size), lengths are sane, the disassembler copes, and longer input never changes what was decoded.
 *
 * Input     One byte: mode and real-mode flag; then code.
 */
#include "cpu/insn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok)
        abort();
}

static int decode_copy(const uint8_t *code, size_t len, enum insn_mode mode, bool real, struct insn *ret)
{
    uint8_t *copy = malloc(len ? len : 1);

    require(copy != NULL);
    memcpy(copy, code, len);
    int err = insn_decode(copy, len, mode, real, ret);
    free(copy);
    return err;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    enum insn_mode mode = data[0] % 3;
    bool real = mode != INSN_64 && data[0] & 0x80;
    const uint8_t *code = data + 1;
    size_t left = size - 1;

    for (unsigned n = 0; n < 64; n++) {
        struct insn i, again;
        char text[96], tiny[5];
        int err = decode_copy(code, left, mode, real, &i);

        require(err == 0 || err == -EAGAIN || err == -EILSEQ || err == -E2BIG);
        require(err != -EAGAIN || left < INSN_MAX_LEN);
        if (err)
            break;
        require(i.len >= 1 && i.len <= INSN_MAX_LEN && i.len <= left && i.row < insn_row_count);
        require(i.opsize == 1 || i.opsize == 2 || i.opsize == 4 || i.opsize == 8);
        require(i.adsize == 2 || i.adsize == 4 || i.adsize == 8);
        require(decode_copy(code, i.len, mode, real, &again) == 0);
        require(memcmp(&i, &again, sizeof(i)) == 0);
        require(i.len == 1 || decode_copy(code, i.len - 1u, mode, real, &again) == -EAGAIN);
        require(strlen(insn_disassemble(&i, 0x1000, text, sizeof(text))) < sizeof(text));
        require(strlen(insn_disassemble(&i, 0x1000, tiny, sizeof(tiny))) < sizeof(tiny));
        code += i.len;
        left -= i.len;
    }
    return 0;
}
