/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Writing XML. Thread: any. */
#include "manager/markup.h"

#include <stdarg.h>

void markup_add(GString *b, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    g_autofree char *text = g_markup_vprintf_escaped(format, ap);
    va_end(ap);
    g_string_append(b, text);
}
