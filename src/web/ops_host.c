/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Operations on the host: version, what it is, how busy, the description of this interface. */
#include "web/metrics.h"
#include "web/op.h"

#include "manager/domain/domain.h"
#include "manager/node/node.h"

#include <string.h>

static JsonNode *do_version(struct web_request *r, GError **error)
{
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "version", RUCHE_VERSION);
    json_object_set_string_member(o, "libvirt", "9.0.0");
    json_object_set_string_member(o, "mode", manager.session ? "session" : "system");
    return web_node(o);
}
WEB_OP(version, .method = "GET", .path = "/version", .summary = "Versions, and whether this is a system's or a person's manager",
       .quick = true, .call = do_version);

static JsonNode *do_host(struct web_request *r, GError **error)
{
    struct node_info info;
    if (!node_info(r->who, &info, error))
        return NULL;
    g_autofree char *name = node_hostname();
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "name", name);
    json_object_set_string_member(o, "arch", info.model);
    json_object_set_int_member(o, "cpus", info.cpus);
    json_object_set_int_member(o, "mhz", info.mhz);
    json_object_set_int_member(o, "nodes", info.nodes);
    json_object_set_int_member(o, "sockets", info.sockets);
    json_object_set_int_member(o, "cores", info.cores);
    json_object_set_int_member(o, "threads", info.threads);
    json_object_set_int_member(o, "memory", (int64_t)info.memory_kib * 1024);
    json_object_set_int_member(o, "memory_free", (int64_t)node_free_memory());
    json_object_set_int_member(o, "domains_active", domain_count(true));
    json_object_set_int_member(o, "domains_inactive", domain_count(false));
    g_autofree char *uri = g_strdup_printf("qemu+unix:///%s?socket=%s/libvirt-sock", manager.session ? "session" : "system",
                                           manager.runtime_dir);
    json_object_set_string_member(o, "uri", uri);
    return web_node(o);
}
WEB_OP(host, .method = "GET", .path = "/host", .summary = "What the host is, and how many machines it has", .quick = true,
       .call = do_host);

static JsonNode *do_capabilities(struct web_request *r, GError **error)
{
    r->text_type = "application/xml";
    r->ret_text = node_capabilities(r->who, error);
    return NULL;
}
WEB_OP(host_capabilities, .method = "GET", .path = "/host/capabilities", .summary = "What the host can do for machines, as libvirt's XML",
       .call = do_capabilities);

static JsonNode *do_openapi(struct web_request *r, GError **error)
{
    return web_openapi();
}
WEB_OP(openapi, .method = "GET", .path = "/openapi.json", .summary = "This description", .quick = true, .call = do_openapi);

static JsonNode *do_metrics(struct web_request *r, GError **error)
{
    r->text_type = "text/plain; version=0.0.4; charset=utf-8";
    r->ret_text = web_metrics(r->who, error);
    return NULL;
}
WEB_OP(metrics, .method = "GET", .path = "/metrics", .summary = "Figures of the host and of every machine, for Prometheus",
       .call = do_metrics);
