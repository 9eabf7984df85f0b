/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The walk over the command line; the options themselves are rows in opt_*.c. */
#include "vmm/options.h"

#include <json-glib/json-glib.h>

#include <string.h>

#define MAX_ROWS 160

static void free_kv(gpointer p)
{
    kv_list_free(p);
}

static void free_monitor(gpointer p)
{
    struct monitor_text *m = p;
    g_free(m->spec);
    g_free(m);
}

static void free_fw_cfg(gpointer p)
{
    struct fw_cfg_text *f = p;
    g_free(f->name);
    g_free(f->text);
    g_free(f->file);
    g_free(f);
}

/* The lists of a struct vm_options that hold struct kv_list. */
static GPtrArray **const *kv_lists(struct vm_options *o)
{
    static __thread GPtrArray **lists[11];
    GPtrArray **all[] = { &o->drives, &o->devices,  &o->globals, &o->netdevs, &o->nics,  &o->nets,
                          &o->chardevs, &o->objects, &o->mons,   &o->smbios,  NULL };
    G_STATIC_ASSERT(sizeof(all) == sizeof(lists));
    memcpy(lists, all, sizeof(all));
    return lists;
}

void vm_options_init(struct vm_options *o)
{
    *o = (struct vm_options){ .accel_config.translate = CPU_TRANSLATE_ON };
    for (GPtrArray **const *l = kv_lists(o); *l; l++)
        **l = g_ptr_array_new_with_free_func(free_kv);
    o->blockdevs = g_ptr_array_new_with_free_func((GDestroyNotify)json_object_unref);
    o->serials = g_ptr_array_new_with_free_func(g_free);
    o->monitors = g_ptr_array_new_with_free_func(free_monitor);
    o->fw_cfg = g_ptr_array_new_with_free_func(free_fw_cfg);
}

void vm_options_done(struct vm_options *o)
{
    for (GPtrArray **const *l = kv_lists(o); *l; l++)
        g_clear_pointer(*l, g_ptr_array_unref);
    g_clear_pointer(&o->blockdevs, g_ptr_array_unref);
    g_clear_pointer(&o->serials, g_ptr_array_unref);
    g_clear_pointer(&o->monitors, g_ptr_array_unref);
    g_clear_pointer(&o->fw_cfg, g_ptr_array_unref);
    g_clear_pointer(&o->machine, kv_list_free);
    char **strings[] = { &o->accel, &o->cpu, &o->kernel, &o->initrd, &o->append, &o->bios, &o->name,
                         &o->process_name, &o->pidfile, &o->incoming };
    for (size_t i = 0; i < G_N_ELEMENTS(strings); i++)
        g_clear_pointer(strings[i], g_free);
}

const struct option_row *const *option_rows(void)
{
    static const struct option_row *rows[MAX_ROWS];
    if (rows[0])
        return rows;
    static const struct option_row *const sources[] = { machine_option_rows, backend_option_rows,
                                                        run_option_rows };
    size_t n = 0;
    for (int group = 0; group < N_OPTION_GROUPS; group++)
        for (size_t i = 0; i < G_N_ELEMENTS(sources); i++)
            for (const struct option_row *r = sources[i]; r->name; r++)
                if ((int)r->group == group && n < MAX_ROWS - 1)
                    rows[n++] = r;
    return rows;
}

static const struct option_row *row_find(const char *name)
{
    for (const struct option_row *const *r = option_rows(); *r; r++)
        if (!strcmp((*r)->name, name))
            return *r;
    return NULL;
}

static bool unknown_option(const char *word, GError **error)
{
    const char *names[MAX_ROWS];
    size_t n = 0;
    for (const struct option_row *const *r = option_rows(); *r; r++)
        names[n++] = (*r)->name;
    names[n] = NULL;
    const char *name = word + strspn(word, "-"), *near = suggest_word(name, names);
    return ruche_error(error, RUCHE_ERR_UNKNOWN, "%s: unknown option%s%s%s", word,
                       near ? "; did you mean '-" : "", near ? near : "", near ? "'?" : "");
}

static bool take_option(struct vm_options *o, const struct option_row *row, const char *arg,
                        GError **error)
{
    GError *local = NULL;
    if (row->take(o, arg, &local))
        return true;
    g_propagate_prefixed_error(error, local, "-%s: ", row->name);
    return false;
}

bool vm_options_parse(struct vm_options *o, int argc, char **argv, GError **error)
{
    for (int i = 1; i < argc && !o->exit_now; i++) {
        const char *word = argv[i];
        if (word[0] != '-' || !word[1])
            return ruche_error(
                error, RUCHE_ERR_INVALID,
                "'%s' stands alone; to use it as a disk, say -drive file=%s,format=raw", word,
                word);
        const char *name = word + (word[1] == '-' ? 2 : 1);
        const struct option_row *row = row_find(name);
        if (!row)
            return unknown_option(word, error);
        const char *arg = NULL;
        if (row->arg) {
            if (i + 1 == argc)
                return ruche_error(error, RUCHE_ERR_INVALID, "%s: an argument is missing: %s", word,
                                   row->arg);
            arg = argv[++i];
        }
        if (!take_option(o, row, arg, error))
            return false;
    }
    return true;
}

bool option_add_kv(GPtrArray *list, const char *arg, const char *implied, GError **error)
{
    struct kv_list *l = kv_parse(arg, implied, error);
    if (!l)
        return false;
    g_ptr_array_add(list, l);
    return true;
}

bool option_set_string(char **field, const char *arg)
{
    g_free(*field);
    *field = g_strdup(arg);
    return true;
}

bool option_merge_kv(struct kv_list **list, const char *arg, const char *implied, GError **error)
{
    auto_kv *more = kv_parse(arg, implied, error);
    if (!more)
        return false;
    if (!*list) {
        *list = more;
        more = NULL;
        return true;
    }
    for (size_t i = 0; i < more->count; i++)
        if (!kv_add(*list, more->pairs[i].key, more->pairs[i].value, error))
            return false;
    return true;
}
