/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nftables through libnftables. See nft.h.
 *
 * A context per call: calls of several workers do not meet. The kernel takes one transaction at a
 * time and the library does not repeat what came in between, so that batches are repeated here.
 * The library and what it brings along are loaded for the first rule.
 */
#include "manager/network/nft.h"

#include "base/plugin.h"
#include "manager/task.h"

#include <nftables/libnftables.h>
#include <string.h>

#define TRIES 5

#define SYMBOLS(F)                                                                                 \
    F(nft_ctx_buffer_error)                                                                        \
    F(nft_ctx_buffer_output)                                                                       \
    F(nft_ctx_free)                                                                                \
    F(nft_ctx_get_error_buffer)                                                                    \
    F(nft_ctx_get_output_buffer)                                                                   \
    F(nft_ctx_new)                                                                                 \
    F(nft_ctx_output_set_flags)                                                                    \
    F(nft_run_cmd_from_buffer)

#define MEMBER(name) __typeof__(name) *name;
#define ROW(name)    {#name, offsetof(struct library, name)},
static struct library {
    SYMBOLS(MEMBER)
} nft;
static const struct plugin_symbol symbols[] = {SYMBOLS(ROW)};

static bool load(GError **error)
{
    static GMutex lock;
    g_mutex_lock(&lock);
    bool loaded = nft.nft_ctx_new || plugin_load("libnftables.so.1", "libnftables1", symbols,
                                                 G_N_ELEMENTS(symbols), &nft, error);
    g_mutex_unlock(&lock);
    return loaded;
}

static void first_line(const char *text, GString *ret)
{
    const char *end = strchr(text, '\n');
    g_string_append_len(ret, text, end ? end - text : (gssize)strlen(text));
}

/* What it prints on standard output; NULL with *error. */
static char *run(const char *commands, GError **error)
{
    if (!load(error))
        return NULL;
    struct nft_ctx *ctx = nft.nft_ctx_new(NFT_CTX_DEFAULT);
    if (!ctx) {
        ruche_error(error, RUCHE_ERR_IO, "nftables: there is no access to the kernel's rules");
        return NULL;
    }
    nft.nft_ctx_buffer_output(ctx);
    nft.nft_ctx_buffer_error(ctx);
    nft.nft_ctx_output_set_flags(ctx, NFT_CTX_OUTPUT_STATELESS | NFT_CTX_OUTPUT_TERSE);
    char *answer = NULL;
    for (unsigned i = 0; i < TRIES && !answer; i++) {
        bool ok = nft.nft_run_cmd_from_buffer(ctx, commands) == 0;
        g_autofree char *said = g_strdup(nft.nft_ctx_get_error_buffer(ctx));
        if (ok) {
            answer = g_strdup(nft.nft_ctx_get_output_buffer(ctx));
        } else if (i == TRIES - 1 || !strstr(said, "Resource temporarily unavailable")) {
            g_autoptr(GString) line = g_string_new(NULL);
            first_line(*said ? said : "refused", line);
            ruche_error(error, RUCHE_ERR_IO, "nftables: %s", line->str);
            break;
        }
    }
    nft.nft_ctx_free(ctx);
    return answer;
}

bool nft_apply_blocking(const char *commands, GError **error)
{
    g_autofree char *answer = run(commands, error);
    return answer != NULL;
}

char *nft_list_blocking(const char *what, GError **error)
{
    g_autofree char *command = g_strconcat("list ", what, "\n", NULL);
    return run(command, error);
}

struct work {
    const char *commands;
    char *answer;
    GError *error;
};

static void do_work(void *opaque)
{
    struct work *w = opaque;
    w->answer = run(w->commands, &w->error);
}

static char *on_worker(const char *commands, GError **error)
{
    struct work w = {.commands = commands};
    task_work(do_work, &w);
    if (w.error)
        g_propagate_error(error, w.error);
    return w.answer;
}

bool nft_apply(const char *commands, GError **error)
{
    g_autofree char *answer = on_worker(commands, error);
    return answer != NULL;
}

char *nft_list(const char *what, GError **error)
{
    g_autofree char *command = g_strconcat("list ", what, "\n", NULL);
    return on_worker(command, error);
}

/* Made first, so that taking it away never fails. */
bool nft_delete_table(const char *family, const char *table, GError **error)
{
    g_autofree char *commands =
        g_strdup_printf("add table %s %s\ndelete table %s %s\n", family, table, family, table);
    return nft_apply(commands, error);
}
