/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Descriptions of networks and updates to them, dnsmasq's file of leases, others' firewall rules:
 * the first byte chooses. */
#include "manager/network/network_priv.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* One line of a program's file is one setting: nothing brings others in. */
static void check_lines(const char *text)
{
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p < ' ' && *p != '\n')
            __builtin_trap();
}

static bool never(const char *name)
{
    return false;
}

/* What was accepted is accepted again as it is printed, and stays the same. */
static void fuzz_description(const char *text)
{
    struct network_def d, again;
    if (!network_def_parse(&d, text, 0, NULL))
        return;
    network_def_name_bridge(&d, never);
    g_autofree char *first = network_def_format(&d), *rules = network_rules(&d, false);
    if (!network_def_parse(&again, first, 0, NULL))
        __builtin_trap();
    g_autofree char *second = network_def_format(&again);
    if (strcmp(first, second) != 0)
        __builtin_trap();
    if (network_dnsmasq_needed(&d)) {
        g_autofree char *conf = network_dnsmasq_conf(&d, "/p", "/l", "nobody");
        check_lines(conf);
    }
    if (rules)
        check_lines(rules);
    network_def_done(&d);
    network_def_done(&again);
}

static void fuzz_obstacles(const char *rules)
{
    static const char xml[] = "<network><name>n</name><forward mode='nat'/><bridge name='virbr0'/>"
                              "<ip address='192.168.7.1' prefix='24'/></network>";
    struct network_def d;
    g_ptr_array_unref(network_foreign_tables(rules));
    if (!network_def_parse(&d, xml, 0, NULL))
        __builtin_trap();
    g_ptr_array_unref(network_obstacles(rules, &d, true));
    network_def_done(&d);
}

static void fuzz_update(unsigned choice, const char *text)
{
    static const char base[] =
        "<network><name>n</name><forward mode='nat'/><bridge name='b'/><ip address='192.168.7.1' "
        "prefix='24'>"
        "<dhcp><range start='192.168.7.9' end='192.168.7.99'/></dhcp></ip></network>";
    struct network_def d;
    if (!network_def_parse(&d, base, 0, NULL))
        __builtin_trap();
    network_def_update(&d, choice % 5, choice / 5 % 14, -1, text, NULL);
    network_def_done(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    g_autofree char *text = g_strndup((const char *)data + 1, size - 1);
    if (data[0] == 'l')
        g_ptr_array_unref(network_leases_parse(text, 1000));
    else if (data[0] == 'n')
        fuzz_description(text);
    else if (data[0] == 'o')
        fuzz_obstacles(text);
    else if (data[0] == 'p') {
        g_autofree char *table = network_legacy_table(text);
        fuzz_obstacles(table);
    } else
        fuzz_update(data[0], text);
    return 0;
}
