/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who is let in by each kind of authorization object; what is refused when one is made. */
#include "image/authz.h"

#include <string.h>
#include <unistd.h>

/* The texts here have ' for ". */
static JsonObject *parse(const char *text)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *json = g_strdelimit(g_strdup(text), "'", '"');
    g_autoptr(JsonNode) n = json_from_string(json, &error);
    g_assert_no_error(error);
    return json_node_dup_object(n);
}

static void add(const char *kind, const char *text)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonObject) o = parse(text);
    authz_add(kind, "a", o, &error);
    g_assert_no_error(error);
}

static void refused(const char *kind, const char *text, const char *part)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonObject) o = parse(text);
    g_assert_false(authz_add(kind, "a", o, &error));
    if (!strstr(error->message, part))
        g_error("'%s' does not say '%s'", error->message, part);
}

static void test_simple(void)
{
    add("authz-simple", "{'identity': 'CN=x'}");
    g_assert_true(authz_allows("a", "CN=x"));
    g_assert_false(authz_allows("a", "CN=xy"));
    g_assert_false(authz_allows("a", NULL));
    g_assert_true(authz_remove("a"));
    g_assert_false(authz_remove("a"));
    g_assert_false(authz_allows("a", "CN=x")); /* nobody, when it is gone */
}

#define RULES                                                                                      \
    "{'rules': [{'match': 'CN=bad*', 'policy': 'deny', 'format': 'glob'},"                         \
    "           {'match': 'CN=b?d', 'policy': 'allow'},"                                           \
    "           {'match': 'CN=b*', 'policy': 'allow', 'format': 'glob'}], 'policy': '%s'}"
#define DOTTED                                                                                     \
    "{'rules.0.match': 'CN=bad*', 'rules.0.policy': 'deny', 'rules.0.format': 'glob',"             \
    " 'rules.1.match': 'CN=b?d', 'rules.1.policy': 'allow',"                                       \
    " 'rules.2.match': 'CN=b*', 'rules.2.policy': 'allow', 'rules.2.format': 'glob', 'policy': '%s'}"

static void check_rules(bool others)
{
    g_assert_false(authz_allows("a", "CN=bad"));
    g_assert_false(authz_allows("a", "CN=badger"));
    g_assert_true(authz_allows("a", "CN=b?d"));
    g_assert_true(authz_allows("a", "CN=bee"));
    g_assert_true(authz_allows("a", "CN=wasp") == others);
    g_assert_false(authz_allows("a", NULL));
}

static void test_list(void)
{
    static const char *const forms[] = { RULES, DOTTED };
    for (unsigned i = 0; i < G_N_ELEMENTS(forms); i++) {
        for (unsigned allow = 0; allow < 2; allow++) {
            g_auto(GStrv) parts = g_strsplit(forms[i], "%s", 2);
            g_autofree char *text = g_strconcat(parts[0], allow ? "allow" : "deny", parts[1], NULL);
            add("authz-list", text);
            check_rules(allow);
            refused("authz-list", text, "'a' exists already");
            authz_remove("a");
        }
    }
}

static void test_file(void)
{
    g_autofree char *path = g_strdup_printf("%s/ruche-authz-%d", g_get_tmp_dir(), getpid());
    g_autofree char *on = g_strdup_printf("{'filename': '%s'}", path),
                    *off = g_strdup_printf("{'filename': '%s', 'refresh': false}", path);
    g_auto(GStrv) parts = g_strsplit(RULES, "%s", 2);
    g_autofree char *text =
        g_strdelimit(g_strconcat(parts[0], "deny", parts[1], NULL), "'", '"');
    g_assert_true(g_file_set_contents(path, text, -1, NULL));
    add("authz-list-file", on);
    check_rules(false);
    g_assert_true(g_file_set_contents(path, "{\"policy\": \"allow\"}", -1, NULL));
    g_assert_true(authz_allows("a", "CN=wasp"));
    g_assert_true(g_file_set_contents(path, "{", -1, NULL));
    g_assert_false(authz_allows("a", "CN=bee"));
    authz_remove("a");
    g_assert_true(g_file_set_contents(path, text, -1, NULL));
    add("authz-list-file", off);
    unlink(path);
    check_rules(false);
    authz_remove("a");
    refused("authz-list-file", on, path);
}

static void test_refused(void)
{
    refused("authz-x", "{}", "'authz-x'");
    refused("authz-simple", "{}", "'identity' is missing");
    refused("authz-simple", "{'identity': 'x', 'color': 'red'}", "'color'");
    refused("authz-list", "{'policy': 'perhaps'}", "'perhaps', not 'deny' or 'allow'");
    refused("authz-list", "{'rules': [{'match': 'x'}]}", "'rules.0.policy' is missing");
    refused("authz-list", "{'rules': [{'match': 'x', 'policy': 'allow', 'format': 'regex'}]}", "'regex'");
    refused("authz-list", "{'rules': [{'policy': 'allow'}]}", "'rules.0.policy'");
    refused("authz-list-file", "{}", "'filename' is missing");
    GString *many = g_string_new("{'rules': [");
    for (unsigned i = 0; i <= AUTHZ_RULES_MAX; i++)
        g_string_append(many, "{'match': 'x', 'policy': 'allow'},");
    many->str[many->len - 1] = ']';
    g_string_append_c(many, '}');
    refused("authz-list", many->str, "more than 1024 rules");
    g_string_free(many, TRUE);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/authz/simple", test_simple);
    g_test_add_func("/authz/list", test_list);
    g_test_add_func("/authz/file", test_file);
    g_test_add_func("/authz/refused", test_refused);
    return g_test_run();
}
