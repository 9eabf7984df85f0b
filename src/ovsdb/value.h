/* SPDX-License-Identifier: GPL-2.0-or-later */
/* OVSDB's values: atoms, sets and maps, to and from JSON.
 *
 * Spec      RFC 7047, section 5.1.
 * Owner     A datum owns its atoms and their texts: ovsdb_datum_done(), twice is fine.
 * Thread    Any.
 * Trust     JSON is a peer's: types and lengths are checked, its size was bounded by the frame
 *           (base/json_frame.h).
 * Errors    NULL, or what is wrong with it, a constant text.
 */
#pragma once

#include <json-glib/json-glib.h>
#include <stdbool.h>
#include <stdint.h>

#define OVSDB_ELEMENTS_MAX 65536 /* of one set or map */
#define OVSDB_TEXT_MAX     65536 /* bytes of one string */

enum ovsdb_atom_type {
    OVSDB_INTEGER,
    OVSDB_REAL,
    OVSDB_BOOLEAN,
    OVSDB_STRING,
    OVSDB_UUID,       /* "550e8400-e29b-41d4-a716-446655440000" */
    OVSDB_NAMED_UUID, /* of a row that the same transaction inserts: its name */
};
struct ovsdb_atom {
    enum ovsdb_atom_type type;
    union {
        int64_t integer;
        double real;
        bool boolean;
        char *text; /* string, UUID, name */
    };
};
enum ovsdb_kind { OVSDB_ATOM, OVSDB_SET, OVSDB_MAP };
struct ovsdb_datum {
    enum ovsdb_kind kind;
    unsigned count;          /* 1 of an atom */
    struct ovsdb_atom *keys; /* elements; of a map its keys */
    struct ovsdb_atom *values;
};
const char *ovsdb_datum_parse(struct ovsdb_datum *ret, JsonNode *node);
JsonNode *ovsdb_datum_format(const struct ovsdb_datum *d);
void ovsdb_datum_done(struct ovsdb_datum *d);
#define auto_ovsdb_datum __attribute__((cleanup(ovsdb_datum_done))) struct ovsdb_datum

/* The text of an atom, or of a set's only element, that is of the type; NULL: it is another, or
 * there is none. */
const char *ovsdb_datum_text(const struct ovsdb_datum *d, enum ovsdb_atom_type type);
/* The value of a key in a map of strings; NULL: it is not there. */
const char *ovsdb_datum_get(const struct ovsdb_datum *d, const char *key);
/* A column of a row (JSON of "rows" or of an update). */
const char *ovsdb_row_get(JsonObject *row, const char *column, struct ovsdb_datum *ret);

/* Values on their way out, the caller's. */
JsonNode *ovsdb_text(const char *text);
JsonNode *ovsdb_uuid(const char *uuid);
JsonNode *ovsdb_named(const char *name);
JsonNode *ovsdb_set(JsonNode *const *atoms, unsigned count); /* takes the atoms */
JsonNode *ovsdb_integers(const int64_t *numbers, unsigned count);
JsonNode *ovsdb_map(
    const char *const *pairs); /* key, value, ..., NULL; a pair whose value is "" is left out */
/* A name for a row that a transaction inserts: RFC 7047's <id>. */
bool ovsdb_is_id(const char *text);
