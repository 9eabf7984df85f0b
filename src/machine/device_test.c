/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Device kinds, properties and saved state, on a kind of the test's own. machine_event() stands here: the archive's is
 * not linked. */
#include "machine/machine.h"

#include <string.h>

static const char *const colours[] = { "red", "green", NULL };

struct gadget {
    struct device dev;
    uint16_t queue_size;
    bool shiny;
    char *label;
    int colour;
    uint8_t mac[6];
    int lid;
    uint64_t room;
    uint32_t reg, regs[3];
    unsigned resets, unrealized;
};

static const struct prop gadget_props[] = {
    PROP_U16("queue-size", struct gadget, queue_size, .def = 256, .min = 2, .max = 1024, .power_of_2 = true),
    PROP_BOOL("shiny", struct gadget, shiny, .def = true),
    PROP_STRING("label", struct gadget, label, .def_str = "none"),
    PROP_ENUM("colour", struct gadget, colour, .def = 1, .words = colours),
    PROP_MAC("mac", struct gadget, mac),
    PROP_ONOFFAUTO("lid", struct gadget, lid, .def = (uint64_t)-1),
    PROP_SIZE("room", struct gadget, room, .def = 4096),
    { 0 },
};

static const struct state_field gadget_state[] = {
    STATE(struct gadget, reg),
    STATE_ARRAY(struct gadget, regs),
    { 0 },
};

static bool gadget_realize(struct device *d, GError **error)
{
    struct gadget *g = (struct gadget *)d;
    return strcmp(g->label, "broken") ||
           ruche_error(error, RUCHE_ERR_INVALID, "gadget: label '%s' is not for use", g->label);
}

static void gadget_reset(struct device *d)
{
    ((struct gadget *)d)->resets++;
}

static const char *const gadget_aliases[] = { "gizmo", NULL };

static const struct device_type gadget_type = {
    .name = "test-gadget", .aliases = gadget_aliases, .summary = "For tests", .bus = BUS_SYSTEM,
    .size = sizeof(struct gadget), .props = gadget_props, .state = gadget_state,
    .realize = gadget_realize, .reset = gadget_reset,
};
DEVICE_TYPE(gadget_type);

static unsigned events;

void machine_event(struct machine *m, const char *name, const char *const *pairs)
{
    events++;
    g_assert_cmpstr(name, ==, "X_RUCHE_DEVICE_BROKEN");
    g_assert_cmpstr(pairs[7], ==, "the ring loops");
}

static void expect_error(struct device *d, const char *prop, const char *value, const char *text)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *before = device_get(d, prop);
    g_assert_false(device_set(d, prop, value, &error));
    g_assert_cmpstr(error->message, ==, text);
    g_autofree char *after = device_get(d, prop);
    g_assert_cmpstr(before, ==, after);
}

static void test_properties(void)
{
    struct machine m = { 0 };
    struct global_prop unused = { .driver = "other", .prop = "x", .value = "y" };
    struct global_prop global = { .driver = "gizmo", .prop = "room", .value = "1M", .next = &unused };
    m.config.globals = &global;
    m.devices_tail = &m.devices;
    g_autoptr(GError) error = NULL;
    struct device *d = device_new(&m, "gizmo", &error);
    g_assert_no_error(error);
    struct gadget *g = (struct gadget *)d;
    g_assert_cmpuint(g->queue_size, ==, 256);
    g_assert_true(g->shiny);
    g_assert_cmpint(g->lid, ==, -1);
    g_assert_cmpuint(g->room, ==, MIB);
    g_assert_true(global.used);
    g_assert_false(unused.used);
    g_assert_true(device_set(d, "mac", "52:54:00:12:34:5f", &error));
    g_autofree char *mac = device_get(d, "mac");
    g_assert_cmpstr(mac, ==, "52:54:00:12:34:5f");
    g_assert_true(device_set(d, "label", "kept", &error));
    expect_error(d, "queue-size", "3000",
                 "test-gadget: property 'queue-size' is 3000, but must be from 2 to 1024");
    expect_error(d, "queue-size", "100", "test-gadget: property 'queue-size' is 100, but must be a power of two");
    expect_error(d, "queue-size", "many", "test-gadget: property 'queue-size' is 'many', which is not a number");
    expect_error(d, "colour", "blue", "test-gadget: property 'colour' is 'blue', but must be one of red, green");
    expect_error(d, "shiny", "maybe", "test-gadget: property 'shiny' is 'maybe', but must be on or off");
    expect_error(d, "mac", "53:54:00:12:34:56",
                 "test-gadget: property 'mac' is '53:54:00:12:34:56', a multicast address (first byte is odd)");
    expect_error(d, "mac", "52:54:00:12:34",
                 "test-gadget: property 'mac' is '52:54:00:12:34', but must look like 52:54:00:12:34:56");
    expect_error(d, "room", "1x", "test-gadget: property 'room' is '1x', which is not a size");
    expect_error(d, "colr", "red", "device 'test-gadget' has no property 'colr'; did you mean 'colour'?");
    device_free(d);
    g_assert_null(m.devices);
    g_assert_null(device_new(&m, "test-gadgt", &error));
    g_assert_cmpstr(error->message, ==, "there is no device 'test-gadgt'; did you mean 'test-gadget'?");
}

static void test_life(void)
{
    struct machine m = { 0 };
    m.devices_tail = &m.devices;
    g_autoptr(GError) error = NULL;
    struct device *a = device_make(&m, "test-gadget", &error, "label", "a", NULL);
    struct device *b = device_make(&m, "test-gadget", &error, "label", "b", NULL);
    g_assert_no_error(error);
    g_assert_true(m.devices == a && a->next == b);
    g_assert_null(device_make(&m, "test-gadget", &error, "label", "broken", NULL));
    g_assert_cmpstr(error->message, ==, "gadget: label 'broken' is not for use");
    g_assert_null(b->next); /* the failed one left nothing behind */
    device_broken(a, "the ring loops");
    device_broken(a, "something else");
    g_assert_cmpuint(events, ==, 1);
    g_assert_cmpstr(a->broken_why, ==, "the ring loops");
    device_reset(a);
    g_assert_false(a->broken);
    g_assert_cmpuint(((struct gadget *)a)->resets, ==, 1);
    device_free(b);
    device_free(a);
    device_free(NULL);
}

static void test_state(void)
{
    struct machine m = { 0 };
    m.devices_tail = &m.devices;
    g_autoptr(GError) error = NULL;
    struct device *d = device_make(&m, "test-gadget", &error, NULL);
    struct gadget *g = (struct gadget *)d;
    g->reg = 7;
    g->regs[2] = 9;
    g_autoptr(GByteArray) saved = device_state_save(d);
    g->reg = g->regs[2] = 0;
    g_assert_true(device_state_load(d, saved->data, saved->len, &error));
    g_assert_cmpuint(g->reg, ==, 7);
    g_assert_cmpuint(g->regs[2], ==, 9);
    /* Cut anywhere, it is refused and changes nothing. */
    g->reg = 1;
    for (guint len = 0; len < saved->len; len++) {
        g_autoptr(GError) cut = NULL;
        g_assert_false(device_state_load(d, saved->data, len, &cut));
        g_assert_nonnull(cut);
        g_assert_cmpuint(g->reg, ==, 1);
    }
    g_byte_array_append(saved, (const guint8 *)"x", 1);
    g_assert_false(device_state_load(d, saved->data, saved->len, &error));
    g_assert_cmpstr(error->message, ==, "state of device 'test-gadget': 1 bytes too many");
    device_free(d);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/device/properties", test_properties);
    g_test_add_func("/device/life", test_life);
    g_test_add_func("/device/state", test_state);
    return g_test_run();
}
