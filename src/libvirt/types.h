/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Structures that many procedures share, with their rows: names of objects, errors, typed
 * parameters, and argument lists of the same shape.
 *
 * Spec      libvirt's remote protocol at 9.0.0.
 */
#pragma once

#include "libvirt/xdr.h"

/* Limits of the protocol. */
enum {
    LIMIT_OBJECTS = 16384,
    LIMIT_POOLS = 4096,
    LIMIT_FILTERS = 1024,
    LIMIT_PARAMS = 4096,
    LIMIT_CPUMAP = 2048,
    LIMIT_VCPUS = 16384,
    LIMIT_CPUMAPS = 8 << 20,
    LIMIT_CELLS = 1024,
    LIMIT_SASL = 65536,
    LIMIT_MODELS = 8192,
    LIMIT_CPUS = 256,
    LIMIT_STATS = 1024,
    LIMIT_NODE_STATS = 16,
    LIMIT_FEW_PARAMS = 16,
    LIMIT_DATA = 4 << 20
};

struct wire_domain {
    char *name;
    uint8_t uuid[16];
    int32_t id;
};
struct wire_named {
    char *name;
    uint8_t uuid[16];
}; /* networks, pools, filters */
struct wire_interface {
    char *name, *mac;
};
struct wire_volume {
    char *pool, *name, *key;
};
struct wire_device {
    char *name;
};
struct wire_secret {
    uint8_t uuid[16];
    int32_t usage_type;
    char *usage;
};
struct wire_snapshot {
    char *name;
    struct wire_domain dom;
};
struct wire_string {
    char *s;
};
struct wire_u32 {
    uint32_t v;
};
struct wire_u64 {
    uint64_t v;
};
struct wire_error {
    int32_t code, domain;
    char *message;
    int32_t level;
    struct wire_domain *dom;
    char *format, *argument, *third;
    int32_t int1, int2;
    struct wire_named *net;
};
struct wire_param {
    char *field;
    int32_t type;
    union {
        int32_t i;
        uint32_t u;
        int64_t l;
        uint64_t ul;
        double d;
        bool b;
        char *s;
    };
};

extern const struct xdr_row wire_domain_xdr[], wire_named_xdr[], wire_interface_xdr[],
    wire_volume_xdr[], wire_device_xdr[], wire_secret_xdr[], wire_snapshot_xdr[], wire_string_xdr[],
    wire_u32_xdr[], wire_u64_xdr[], wire_error_xdr[], wire_param_xdr[];

/* Arguments and results of the same shape; a procedure names them by ARGS() and RET(). */
struct a_flags {
    uint32_t flags;
};
struct a_name {
    char *name;
};
struct a_name_flags {
    char *name;
    uint32_t flags;
};
struct a_uuid {
    uint8_t uuid[16];
};
struct a_int {
    int32_t v;
};
struct a_two_ints {
    int32_t v, w;
};
struct a_all {
    int32_t need_results;
    uint32_t flags;
}; /* connect_list_all_* */
struct a_domain {
    struct wire_domain dom;
};
struct a_domain_flags {
    struct wire_domain dom;
    uint32_t flags;
};
struct a_domain_int {
    struct wire_domain dom;
    int32_t v;
};
struct a_domain_int_flags {
    struct wire_domain dom;
    int32_t v;
    uint32_t flags;
};
struct a_domain_u64 {
    struct wire_domain dom;
    uint64_t v;
};
struct a_domain_u64_flags {
    struct wire_domain dom;
    uint64_t v;
    uint32_t flags;
};
struct a_domain_text {
    struct wire_domain dom;
    char *text;
};
struct a_domain_text_flags {
    struct wire_domain dom;
    char *text;
    uint32_t flags;
};
struct a_domain_word_flags {
    struct wire_domain dom;
    char *text;
    uint32_t flags;
}; /* the text may be NULL */
struct a_domain_params_flags {
    struct wire_domain dom;
    struct xdr_array params;
    uint32_t flags;
};
struct a_domain_cpus {
    struct wire_domain dom;
    uint32_t cpu;
    struct xdr_bytes map;
};
struct a_domain_cpus_flags {
    struct wire_domain dom;
    uint32_t cpu;
    struct xdr_bytes map;
    uint32_t flags;
};
struct a_named {
    struct wire_named obj;
};
struct a_named_flags {
    struct wire_named obj;
    uint32_t flags;
};
struct a_named_int {
    struct wire_named obj;
    int32_t v;
};
struct a_volume {
    struct wire_volume vol;
};
struct a_volume_flags {
    struct wire_volume vol;
    uint32_t flags;
};

struct r_domain {
    struct wire_domain dom;
};
struct r_named {
    struct wire_named obj;
};
struct r_volume {
    struct wire_volume vol;
};
struct r_int {
    int32_t v;
};
struct r_u64 {
    uint64_t v;
};
struct r_text {
    char *text;
};
struct r_names {
    struct xdr_array names;
}; /* of wire_string */
struct r_params {
    struct xdr_array params;
}; /* of wire_param */
struct r_params_count {
    struct xdr_array params;
    int32_t count;
};
struct r_bytes_int {
    struct xdr_bytes bytes;
    int32_t v;
};

extern const struct xdr_row a_flags_xdr[], a_name_xdr[], a_name_flags_xdr[], a_uuid_xdr[],
    a_int_xdr[], a_two_ints_xdr[], a_all_xdr[], a_domain_xdr[], a_domain_flags_xdr[],
    a_domain_int_xdr[], a_domain_int_flags_xdr[], a_domain_u64_xdr[], a_domain_u64_flags_xdr[],
    a_domain_text_xdr[], a_domain_text_flags_xdr[], a_domain_word_flags_xdr[],
    a_domain_params_flags_xdr[], a_domain_cpus_xdr[], a_domain_cpus_flags_xdr[], a_named_xdr[],
    a_named_flags_xdr[], a_named_int_xdr[], a_volume_xdr[], a_volume_flags_xdr[];
extern const struct xdr_row r_domain_xdr[], r_named_xdr[], r_volume_xdr[], r_int_xdr[], r_u64_xdr[],
    r_text_xdr[], r_names_xdr[], r_params_xdr[], r_params_count_xdr[], r_bytes_int_xdr[];

/* Bytes as the protocol has an array of char: a word for each. Of wire_u32. */
struct xdr_array wire_chars(const char *bytes, size_t len);

#define ARGS(shape) .args = shape##_xdr, .args_size = sizeof(struct shape)
#define RET(shape)  .ret = shape##_xdr, .ret_size = sizeof(struct shape)
