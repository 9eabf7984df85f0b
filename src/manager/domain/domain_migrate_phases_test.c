/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Migration of machines that are not there (fake_vm.h), by a peer that does what a test says: each phase that
 * fails leaves the guest on one side, and nothing on the other.
 */
#include "base/fd.h"
#include "manager/domain/domain_migrate_priv.h"
#include "manager/domain/domain_testing.h"
#include "manager/uuid.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define UUID       "00000000-0000-4000-8000-000000000001"
#define OTHER_HOST "11111111-0000-4000-8000-000000000001"
#define AWAY       (MIGRATE_LIVE | MIGRATE_PEER2PEER | MIGRATE_UNSAFE)

static void hear(void *opaque, const struct event *e)
{
    if (e->id == DOMAIN_EVENT_LIFECYCLE)
        g_string_append_printf(heard, "%d.%d ", e->event, e->detail);
}

/* ---- the peer ---- */

static struct {
    bool shut, dead; /* it does not let us in; it goes after prepare */
    enum migrate_answer prepare, finish, active;
    const char *cookie, *uri;
    unsigned opens, closes, prepares, finishes, cancels, finish_flags;
    char *last_cookie; /* of finish */
} other;

static struct migrate_peer *other_open(const char *uri, GError **error)
{
    if (other.shut) {
        ruche_error(error, RUCHE_ERR_IO, "'%s' cannot be reached", uri);
        return NULL;
    }
    other.opens++;
    return (struct migrate_peer *)&other;
}

static void other_close(struct migrate_peer *p)
{
    other.closes++;
}

static bool other_is_alive(const struct migrate_peer *p)
{
    return !other.dead;
}

static enum migrate_answer other_prepare(struct migrate_peer *p, const struct param_list *params,
                                         const char *cookie, unsigned flags, char **ret_cookie,
                                         char **ret_uri, GError **error)
{
    other.prepares++;
    if (other.prepare == MIGRATE_YES) {
        *ret_cookie = g_strdup(other.cookie);
        *ret_uri = g_strdup(other.uri);
    } else {
        ruche_error(error, MANAGER_ERR_MACHINE, "the peer does not want it");
    }
    return other.prepare;
}

static enum migrate_answer other_finish(struct migrate_peer *p, const struct param_list *params,
                                        const char *cookie, unsigned flags, bool cancelled,
                                        GError **error)
{
    if (cancelled) {
        other.cancels++;
        return MIGRATE_NO;
    }
    other.finishes++;
    other.finish_flags = flags;
    g_free(other.last_cookie);
    other.last_cookie = g_strdup(cookie);
    if (other.finish != MIGRATE_YES)
        ruche_error(error, MANAGER_ERR_MACHINE, "the peer cannot go on with it");
    return other.finish;
}

static enum migrate_answer other_is_active(struct migrate_peer *p, const uint8_t uuid[16],
                                           GError **error)
{
    return other.active;
}

static const struct migrate_peer_ops ops = {.open = other_open,
                                            .close = other_close,
                                            .is_alive = other_is_alive,
                                            .prepare = other_prepare,
                                            .finish = other_finish,
                                            .is_active = other_is_active};

static char *cookie_of(const char *name, const char *uuid, const char *host, const char *more)
{
    return g_strdup_printf("<qemu-migration><name>%s</name><uuid>%s</uuid><hostname>h</hostname>"
                           "<hostuuid>%s</hostuuid>%s</qemu-migration>",
                           name, uuid, host, more);
}

/* ---- what all begin with ---- */

static char *good_cookie;
static int nowhere; /* where states go */

static struct domain *started(void)
{
    static const char xml[] =
        "<domain type='qemu'><name>web</name><uuid>" UUID "</uuid><memory unit='MiB'>128</memory>"
        "<vcpu>2</vcpu><os><type arch='x86_64'>hvm</type></os></domain>";
    g_autoptr(GError) error = NULL;
    struct domain *d = domain_define(me, xml, 0, &error);
    g_assert_no_error(error);
    WORKS(domain_start(me, d, 0, &error));
    g_string_truncate(heard, 0);
    g_free(other.last_cookie);
    memset(&other, 0, sizeof(other));
    other.cookie = good_cookie;
    other.uri = "tcp:there:49152";
    other.active = MIGRATE_NO;
    fake.migrate_fd = nowhere;
    return d;
}

static bool away(struct domain *d, unsigned flags, const char *param, const char *value,
                 GError **error)
{
    struct param_list params = {0};
    g_autofree char *cookie = NULL;
    if (param)
        param_string(&params, param, value);
    const struct migrate_call c = {.who = me, .params = &params, .flags = flags};
    bool ok = domain_migrate_perform(&c, d, "qemu+tcp://there/system", NULL, &cookie, error);
    param_list_done(&params);
    return ok;
}

static void check_stays(struct domain *d)
{
    g_assert_cmpint(d->state, ==, DOMAIN_RUNNING);
    g_assert_null(d->migration);
    g_assert_null(d->job);
    g_assert_cmpuint(fake.live, ==, 1);
    g_assert_cmpuint(other.opens, ==, other.closes);
    WORKS(domain_suspend(me, d, &error)); /* the lock is nobody's */
    WORKS(domain_resume(me, d, &error));
}

/* ---- peer to peer ---- */

static void leaves_task(void *opaque)
{
    struct domain *d = started();
    WORKS(away(d, AWAY | MIGRATE_PERSIST_DEST, NULL, NULL, &error));
    STATE(d, DOMAIN_SHUTOFF, SHUTOFF_MIGRATED);
    HEARD("3.1 5.3 ");
    g_assert_cmpuint(other.finishes, ==, 1);
    g_assert_cmpuint(other.cancels, ==, 0);
    g_assert_nonnull(strstr(other.last_cookie, "<domain"));
    g_assert_cmpuint(fake.live, ==, 0);
    drop(d);
    auto_domain *gone = started(); /* the table's reference goes meanwhile */
    WORKS(away(gone, AWAY | MIGRATE_UNDEFINE_SOURCE, NULL, NULL, &error));
    g_assert_null(strstr(other.last_cookie, "<domain"));
    g_assert_null(domain_peek_name("web"));
}

static void lost_task(void *opaque)
{
    struct domain *d = started();
    other.finish = MIGRATE_LOST;
    FAILS(away(d, AWAY, NULL, NULL, &error), MANAGER_ERR_MACHINE, "did not come to run");
    g_assert_cmpuint(other.cancels, ==, 1); /* called off before it was asked */
    check_stays(d);
    other.finish = MIGRATE_LOST;
    other.active = MIGRATE_YES;
    WORKS(away(d, AWAY, NULL, NULL, &error));
    STATE(d, DOMAIN_SHUTOFF, SHUTOFF_MIGRATED);
    drop(d);
}

static void fails_task(void *opaque)
{
    struct domain *d = started();
    other.shut = true;
    FAILS(away(d, AWAY, NULL, NULL, &error), RUCHE_ERR_IO, "cannot be reached");
    other.shut = false;
    check_stays(d);
    other.prepare = MIGRATE_NO;
    FAILS(away(d, AWAY, NULL, NULL, &error), MANAGER_ERR_MACHINE, "does not want it");
    other.prepare = MIGRATE_YES;
    check_stays(d);
    other.uri = NULL;
    FAILS(away(d, AWAY, NULL, NULL, &error), RUCHE_ERR_INVALID, "where the machine's state");
    g_assert_cmpuint(other.cancels, ==, 1);
    other.uri = "tcp:there:49152";
    check_stays(d);
    fake.fail_stream = true;
    FAILS(away(d, AWAY, NULL, NULL, &error), MANAGER_ERR_MACHINE, "the stream broke");
    fake.fail_stream = false;
    g_assert_cmpuint(other.cancels, ==, 2);
    g_assert_cmpuint(fake.settles, ==, 1);
    check_stays(d);
    other.dead = true;
    FAILS(away(d, AWAY, NULL, NULL, &error), RUCHE_ERR_IO, "ended the connection");
    other.dead = false;
    check_stays(d);
    other.finish = MIGRATE_NO;
    FAILS(away(d, AWAY, NULL, NULL, &error), MANAGER_ERR_MACHINE, "cannot go on with it");
    check_stays(d);
    g_assert_cmpuint(other.finishes, ==, 1);
    drop(d);
}

static void cookies_task(void *opaque)
{
    g_autofree char *own = NULL;
    char host[UUID_TEXT_BYTES];
    uuid_format(manager.host_uuid, host);
    const struct {
        char *cookie;
        const char *says;
        int code;
    } rows[] = {
        {g_strdup("<qemu"), "", 0},
        {g_strdup("<other/>"), "", 0},
        {cookie_of("ftp", UUID, OTHER_HOST, ""), "is of domain 'ftp'", RUCHE_ERR_INVALID},
        {cookie_of("web", OTHER_HOST, OTHER_HOST, ""), "another UUID", RUCHE_ERR_INVALID},
        {cookie_of("web", "x", OTHER_HOST, ""), "another UUID", RUCHE_ERR_INVALID},
        {cookie_of("web", UUID, "", ""), "names no host", RUCHE_ERR_INVALID},
        {cookie_of("web", UUID, host, ""), "same host", RUCHE_ERR_INVALID},
        {cookie_of("web", UUID, OTHER_HOST, "<feature name='teleport'/>"), "asks for 'teleport'",
         RUCHE_ERR_UNSUPPORTED},
        {cookie_of("web", UUID, OTHER_HOST, "<lockstate driver='sanlock'/>"), "by 'sanlock'",
         RUCHE_ERR_UNSUPPORTED},
    };
    struct domain *d = started();
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autoptr(GError) error = NULL;
        other.cookie = rows[i].cookie;
        g_assert_false(away(d, AWAY, NULL, NULL, &error));
        g_assert_nonnull(strstr(error->message, rows[i].says));
        if (rows[i].code)
            g_assert_cmpint(error->code, ==, rows[i].code);
        g_assert_cmpuint(other.cancels, ==, i + 1);
        check_stays(d);
        g_free(rows[i].cookie);
    }
    g_assert_cmpuint(other.finishes, ==, 0);
    own = cookie_of("web", UUID, OTHER_HOST, "<feature name='lockstate'/><statistics/>");
    other.cookie = own;
    WORKS(away(d, AWAY, NULL, NULL, &error));
    other.cookie = good_cookie;
    drop(d);
}

static void descriptions_task(void *opaque)
{
    struct domain *d = started();
    g_autofree char *now = domain_def_format(d->live, DEF_FORMAT_SECURE | DEF_FORMAT_INACTIVE, -1);
    g_auto(GStrv) parts = g_strsplit(now, "131072", -1);
    g_autofree char *more = g_strjoinv("262144", parts);
    FAILS(away(d, AWAY, "destination_xml", more, &error), MANAGER_ERR_CONFIG, "");
    FAILS(away(d, AWAY, "destination_xml", "<domain", &error), RUCHE_ERR_XML_SYNTAX, "well-formed");
    FAILS(away(d, AWAY, "persistent_xml", now, &error), RUCHE_ERR_INVALID, "needs 'persistent'");
    FAILS(away(d, AWAY, "teleport", "yes", &error), MANAGER_ERR_ARGUMENT, "'teleport'");
    FAILS(away(d, AWAY | 1u << 16, NULL, NULL, &error), MANAGER_ERR_ARGUMENT, "'tls'");
    FAILS(away(d, AWAY | MIGRATE_OFFLINE, NULL, NULL, &error), RUCHE_ERR_INVALID, "exclude");
    g_assert_cmpuint(other.prepares, ==, 0);
    check_stays(d);
    drop(d);
}

/* ---- driven by a client ---- */

static const struct caller *const client = (const struct caller *)&other; /* only compared */

static bool direct(struct domain *d, const char *phase, unsigned flags, GError **error)
{
    struct param_list params = {0};
    g_autofree char *cookie = NULL, *xml = NULL;
    bool ok;
    param_string(&params, "migrate_uri", "tcp:there:49152");
    const struct migrate_call c = {.who = me,
                                   .params = &params,
                                   .flags = flags | MIGRATE_LIVE | MIGRATE_UNSAFE |
                                            MIGRATE_CHANGE_PROTECTION,
                                   .cookie = {good_cookie, strlen(good_cookie)}};
    if (!strcmp(phase, "begin"))
        ok = domain_migrate_begin(&c, d, &cookie, &xml, error);
    else if (!strcmp(phase, "perform"))
        ok = domain_migrate_perform(&c, d, NULL, NULL, &cookie, error);
    else
        ok = domain_migrate_confirm(&c, d, !strcmp(phase, "cancel"), error);
    param_list_done(&params);
    return ok;
}

static void direct_task(void *opaque)
{
    struct domain *d = started();
    FAILS(direct(d, "perform", 0, &error), RUCHE_ERR_STATE, "was not begun");
    FAILS(direct(d, "confirm", 0, &error), RUCHE_ERR_STATE, "not being migrated");
    WORKS(direct(d, "begin", 0, &error));
    FAILS(direct(d, "confirm", 0, &error), RUCHE_ERR_STATE, "was not sent");
    check_stays(d);
    WORKS(direct(d, "begin", 0, &error));
    domain_migrate_forget(client);
    g_assert_nonnull(d->migration); /* somebody else's end */
    domain_migrate_forget(me);
    settle();
    check_stays(d);
    WORKS(direct(d, "begin", 0, &error));
    fake.fail_stream = true;
    FAILS(direct(d, "perform", 0, &error), MANAGER_ERR_MACHINE, "the stream broke");
    fake.fail_stream = false;
    settle();
    check_stays(d);
    WORKS(direct(d, "begin", 0, &error));
    WORKS(direct(d, "perform", 0, &error));
    STATE(d, DOMAIN_PAUSED, PAUSED_MIGRATION);
    WORKS(direct(d, "cancel", 0, &error));
    check_stays(d);
    WORKS(direct(d, "begin", 0, &error));
    WORKS(direct(d, "perform", 0, &error));
    domain_migrate_forget(me); /* nobody knows where it is */
    STATE(d, DOMAIN_PAUSED, PAUSED_MIGRATION);
    g_assert_null(d->migration);
    WORKS(domain_resume(me, d, &error));
    WORKS(direct(d, "begin", 0, &error));
    WORKS(direct(d, "perform", 0, &error));
    WORKS(direct(d, "confirm", 0, &error));
    STATE(d, DOMAIN_SHUTOFF, SHUTOFF_MIGRATED);
    drop(d);
}

/* ---- the side that it comes to ---- */

static int listen_at(char **ret_path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    *ret_path = g_build_filename(root, "door", NULL);
    g_strlcpy(a.sun_path, *ret_path, sizeof(a.sun_path));
    unlink(*ret_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(bind(fd, (struct sockaddr *)&a, sizeof(a)), ==, 0);
    g_assert_cmpint(listen(fd, 1), ==, 0);
    return fd;
}

static void bring(const char *path, const char *state)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    g_strlcpy(a.sun_path, path, sizeof(a.sun_path));
    autofd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(connect(fd, (struct sockaddr *)&a, sizeof(a)), ==, 0);
    g_assert_cmpint(write(fd, state, strlen(state)), ==, (ssize_t)strlen(state));
}

static const char comes[] =
    "<domain type='qemu'><name>ftp</name><uuid>" UUID "</uuid><memory unit='MiB'>128</memory>"
    "<vcpu>1</vcpu><os><type arch='x86_64'>hvm</type></os></domain>";

static bool come(const char *phase, const char *cookie, unsigned flags, GError **error)
{
    struct param_list params = {0};
    g_autofree char *answer = NULL, *uri = NULL;
    auto_domain *d = NULL;
    bool ok;
    param_string(&params, "destination_xml", comes);
    param_string(&params, "destination_name", "ftp");
    const struct migrate_call c = {
        .who = me, .params = &params, .flags = flags, .cookie = {cookie, strlen(cookie)}};
    if (!strcmp(phase, "prepare")) {
        ok = domain_migrate_prepare(&c, &answer, &uri, error);
    } else {
        d = domain_migrate_finish(&c, !strcmp(phase, "cancel"), &answer, error);
        ok = d != NULL;
    }
    param_list_done(&params);
    return ok;
}

static void check_gone(void)
{
    settle();
    g_assert_null(domain_peek_name("ftp"));
    g_assert_cmpuint(fake.live, ==, 0);
}

static void comes_task(void *opaque)
{
    g_autofree char *path = NULL;
    g_autofree char *cookie = cookie_of("ftp", UUID, OTHER_HOST, "");
    g_autofree char *wrong = cookie_of("ftp", OTHER_HOST, OTHER_HOST, "");
    g_autofree char *another = cookie_of("ftp", UUID, OTHER_HOST,
                                         "<domain type='qemu'><name>ftp</name><uuid>" OTHER_HOST
                                         "</uuid><memory>9999</memory>"
                                         "<os><type arch='x86_64'>hvm</type></os></domain>");
    fake.migrate_fd = listen_at(&path);
    FAILS(come("finish", cookie, 0, &error), MANAGER_ERR_NO_DOMAIN, "'ftp'");
    FAILS(come("prepare", wrong, 0, &error), RUCHE_ERR_INVALID, "another UUID");
    check_gone();
    WORKS(come("prepare", cookie, 0, &error));
    FAILS(come("cancel", cookie, 0, &error), MANAGER_ERR_ABORTED, "called off");
    check_gone();
    WORKS(come("prepare", cookie, 0, &error));
    domain_migrate_forget(me); /* the source's connection ends */
    check_gone();
    WORKS(come("prepare", cookie, 0, &error));
    bring(path, "state");
    FAILS(come("finish", wrong, 0, &error), RUCHE_ERR_INVALID, "another UUID");
    check_gone();
    WORKS(come("prepare", cookie, 0, &error));
    bring(path, "state");
    fake.fail_stream = true;
    FAILS(come("finish", cookie, 0, &error), MANAGER_ERR_MACHINE, "the stream broke");
    fake.fail_stream = false;
    check_gone();
    WORKS(come("prepare", cookie, 0, &error));
    bring(path, "state");
    FAILS(come("finish", another, MIGRATE_PERSIST_DEST, &error), RUCHE_ERR_INVALID, "another's");
    check_gone();
    WORKS(come("prepare", cookie, 0, &error));
    bring(path, "state");
    g_string_truncate(heard, 0);
    WORKS(come("finish", cookie, MIGRATE_PAUSED | MIGRATE_PERSIST_DEST, &error));
    struct domain *d = domain_find_name("ftp", NULL);
    g_assert_nonnull(d);
    STATE(d, DOMAIN_PAUSED, PAUSED_USER);
    g_assert_true(d->persistent);
    WORKS(domain_resume(me, d, &error));
    drop(d);
    close(fake.migrate_fd);
}

int main(int argc, char **argv)
{
    static const struct domain_test tests[] = {
        {"/domain/migrate/leaves", leaves_task},
        {"/domain/migrate/lost", lost_task},
        {"/domain/migrate/fails", fails_task},
        {"/domain/migrate/cookies", cookies_task},
        {"/domain/migrate/descriptions", descriptions_task},
        {"/domain/migrate/direct", direct_task},
        {"/domain/migrate/comes", comes_task},
    };
    domain_tests_init(&argc, &argv, hear);
    good_cookie = cookie_of("web", UUID, OTHER_HOST, "");
    nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
    domain_migrate_set_peer(&ops);
    int result = domain_tests_run(tests, G_N_ELEMENTS(tests));
    close(nowhere);
    g_free(other.last_cookie);
    g_free(good_cookie);
    return result;
}
