/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Cuts a byte stream into JSON texts, however the bytes are split, and keeps what is not JSON away
 * from the parser.
 *
 * Spec      RFC 8259 for what may stand outside strings; no separators between texts are needed.
 * Owner     The session embeds it: frame_init(), then frame_done().
 * Trust     Bytes are the peer's: a text is bounded in size and depth; outside strings only JSON's
 *           own characters pass, so that no comment or quote hides depth from the parser, which
 *           recurses.
 * Errors    FRAME_BAD reports one sentence, then bytes are skipped up to the next line feed.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>

struct frame {
    GString *text;     /* the text so far */
    size_t max_bytes;
    unsigned max_depth, depth;
    bool in_string, escaped, skipping;
};

enum frame_result {
    FRAME_MORE, /* all bytes are used; the text is not complete */
    FRAME_TEXT, /* frame->text is one balanced text: parse it before the next call */
    FRAME_BAD,  /* *ret_why says what was wrong */
};

void frame_init(struct frame *f, size_t max_bytes, unsigned max_depth);
void frame_done(struct frame *f);
/* Uses bytes from *data until a text is complete; call again with what is left. */
enum frame_result frame_feed(struct frame *f, const char **data, size_t *len, const char **ret_why);
/* One whole text in memory: NULL when the parser may see it, else what is wrong with it. */
const char *frame_check(const char *text, size_t len, size_t max_bytes, unsigned max_depth);
