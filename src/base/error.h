/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The one GError domain of Ruche, its codes, and "did you mean".
 *
 * A message is one sentence without a full stop that names the object, the value and the limit:
 *   ruche_error(error, RUCHE_ERR_INVALID, "-m: '%s' is not a size; use a number with K, M, G or T", text);
 */
#pragma once

#include <glib.h>
#include <stdbool.h>

#define RUCHE_ERROR (ruche_error_quark())
GQuark ruche_error_quark(void);

enum ruche_err {
    RUCHE_ERR_INVALID,     /* a value that cannot be: syntax, range, combination */
    RUCHE_ERR_UNKNOWN,     /* a word that we do not know: option, device, property, command */
    RUCHE_ERR_NOT_FOUND,   /* the named object does not exist */
    RUCHE_ERR_EXISTS,      /* the name is taken */
    RUCHE_ERR_BUSY,        /* in use by somebody else: image lock, socket */
    RUCHE_ERR_UNSUPPORTED, /* understood, but not possible here; says why */
    RUCHE_ERR_NO_SPACE,    /* memory or disk */
    RUCHE_ERR_IO,          /* the system refused: errno is in the sentence */
    RUCHE_ERR_STATE,       /* not in this state */
    RUCHE_ERR_XML_SYNTAX,  /* a document that is not well-formed */
    RUCHE_ERR_XML,         /* one that cannot be: missing, wrong or double element */
    RUCHE_ERR_INTERNAL,
};

/* Sets *error (which may be NULL) and returns false, so that callers say `return ruche_error(...)`. `code` is
 * one of enum ruche_err, or of a higher floor's enum behind it (manager/error.h). */
bool ruche_error(GError **error, int code, const char *format, ...) G_GNUC_PRINTF(3, 4);
/* The same with ": strerror(err)" behind; err is a positive errno; ENOSPC/ENOMEM and EBUSY choose their code. */
bool ruche_error_errno(GError **error, int err, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* The entry of `words` (NULL-terminated) nearest to `word`, or NULL when none is near enough to suggest. */
const char *suggest_word(const char *word, const char *const *words);
/* "; did you mean 'x'?" or "", to be put behind a message. Static per-thread buffer. */
const char *suggest_phrase(const char *word, const char *const *words);
