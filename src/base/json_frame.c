/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Cuts a byte stream into JSON texts; see json_frame.h. */
#include "base/json_frame.h"

#include <string.h>

void frame_init(struct frame *f, size_t max_bytes, unsigned max_depth)
{
    *f = (struct frame){ .text = g_string_new(NULL),
                         .max_bytes = max_bytes,
                         .max_depth = max_depth };
}

void frame_done(struct frame *f)
{
    if (f->text)
        g_string_free(f->text, TRUE);
    f->text = NULL;
}

static void start_over(struct frame *f)
{
    /* A huge text leaves no huge buffer behind. */
    if (f->text->allocated_len > 65536) {
        g_string_free(f->text, TRUE);
        f->text = g_string_new(NULL);
    } else {
        g_string_truncate(f->text, 0);
    }
    f->depth = 0;
    f->in_string = f->escaped = false;
}

/* What may stand outside strings besides brackets and quotes: numbers, true, false, null,
 * separators. */
static bool plain_char(char c)
{
    return g_ascii_isalnum(c) || (c && strchr(" \t\r\n,:+-.", c));
}

enum step { STEP_ON, STEP_END, STEP_BAD_CHAR, STEP_BAD_ESCAPE, STEP_DEEP, STEP_NUL };

/* The parser would take octal escapes too, and make bytes of them that are no UTF-8. */
static enum step step_in_string(struct frame *f, char c)
{
    if (f->escaped && !strchr("\"\\/bfnrtu", c))
        return STEP_BAD_ESCAPE;
    if (f->escaped)
        f->escaped = false;
    else if (c == '\\')
        f->escaped = true;
    else if (c == '"')
        f->in_string = false;
    return STEP_ON;
}

static enum step step(struct frame *f, char c)
{
    if (c == '\0')
        return STEP_NUL;
    if (f->in_string)
        return step_in_string(f, c);
    switch (c) {
    case '"':
        f->in_string = true;
        return STEP_ON;
    case '{':
    case '[':
        return ++f->depth > f->max_depth ? STEP_DEEP : STEP_ON;
    case '}':
    case ']':
        return --f->depth == 0 ? STEP_END : STEP_ON;
    default:
        return plain_char(c) ? STEP_ON : STEP_BAD_CHAR;
    }
}

static const char *step_sentence(enum step s)
{
    switch (s) {
    case STEP_BAD_ESCAPE:
        return "Not JSON: unknown escape in a string";
    case STEP_DEEP:
        return "JSON text is nested too deep";
    case STEP_NUL:
        return "JSON text contains a NUL byte";
    default:
        return "Not JSON: unexpected character outside a string";
    }
}

static enum frame_result bad(struct frame *f, const char *why, const char **ret_why)
{
    start_over(f);
    f->skipping = true;
    *ret_why = why;
    return FRAME_BAD;
}

enum frame_result frame_feed(struct frame *f, const char **data, size_t *len, const char **ret_why)
{
    if (f->text->len && f->depth == 0)
        start_over(f); /* the text that was handed out */
    while (*len) {
        char c = **data;
        if (f->skipping) {
            f->skipping = c != '\n';
            ++*data, --*len;
            continue;
        }
        bool begun = f->text->len > 0;
        if (!begun && strchr(" \t\r\n", c) && c) {
            ++*data, --*len;
            continue;
        }
        if (!begun && c != '{' && c != '[')
            return bad(f, c ? "Not JSON: expected an object" : "JSON text contains a NUL byte",
                       ret_why);
        if (f->text->len >= f->max_bytes)
            return bad(f, "JSON text is too long", ret_why);
        enum step s = step(f, c);
        if (s > STEP_END)
            return bad(f, step_sentence(s), ret_why);
        g_string_append_c(f->text, c);
        ++*data, --*len;
        if (s == STEP_END) {
            if (g_utf8_validate(f->text->str, f->text->len, NULL))
                return FRAME_TEXT;
            start_over(f);
            *ret_why = "JSON text is not UTF-8";
            return FRAME_BAD;
        }
    }
    return FRAME_MORE;
}

const char *frame_check(const char *text, size_t len, size_t max_bytes, unsigned max_depth)
{
    struct frame f;
    const char *why = NULL;
    frame_init(&f, max_bytes, max_depth);
    enum frame_result r = frame_feed(&f, &text, &len, &why);
    if (r == FRAME_MORE)
        why = "JSON text ends too early";
    for (; r == FRAME_TEXT && len; text++, len--)
        if (!*text || !strchr(" \t\r\n", *text))
            why = "something stands behind the JSON text";
    frame_done(&f);
    return why;
}
