/* SPDX-License-Identifier: GPL-2.0-or-later */
/* OVA: archives of each kind of tar header, their manifest, a disk out of them; hostile ones. */
#include "base/scratch.h"
#include "image/ova/ova.h"
#include "image/sparse_testing.h"

#include "base/util.h"

/* ---- making archives ---- */

static void put_header(GByteArray *tar, const char *name, uint64_t size, char type,
                       bool binary_size)
{
    uint8_t block[512] = {0};
    unsigned sum = 0;
    memcpy(block, name, MIN(strlen(name), 100));
    g_snprintf((char *)block + 100, 8, "%07o", 0644);
    if (binary_size) {
        block[124] = 0x80;
        for (unsigned i = 0; i < 8; i++)
            block[135 - i] = (uint8_t)(size >> 8 * i);
    } else {
        g_snprintf((char *)block + 124, 12, "%011" G_GINT64_MODIFIER "o", size);
    }
    block[156] = (uint8_t)type;
    memcpy(block + 257,
           "ustar\0"
           "00",
           8);
    memset(block + 148, ' ', 8);
    for (unsigned i = 0; i < 512; i++)
        sum += block[i];
    g_snprintf((char *)block + 148, 7, "%06o", sum);
    g_byte_array_append(tar, block, sizeof(block));
}

static void put_bytes(GByteArray *tar, const void *bytes, size_t len)
{
    static const uint8_t zeroes[512];
    g_byte_array_append(tar, bytes, (guint)len);
    g_byte_array_append(tar, zeroes, (guint)(align_up(len, 512) - len));
}

static void put_member(GByteArray *tar, const char *name, const void *bytes, size_t len)
{
    put_header(tar, name, len, '0', false);
    put_bytes(tar, bytes, len);
}

static void put_end(GByteArray *tar)
{
    static const uint8_t zeroes[1024];
    g_byte_array_append(tar, zeroes, sizeof(zeroes));
}

static char *envelope(const char *file, const char *disk)
{
    return g_strdup_printf(
        "<?xml version=\"1.0\"?>\n"
        "<Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\" "
        "xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\">\n"
        "<References><File ovf:id=\"file1\" %s/></References>\n"
        "<DiskSection><Info>Disks</Info><Disk ovf:diskId=\"vmdisk1\" ovf:fileRef=\"file1\" %s/>"
        "<Disk ovf:diskId=\"empty\" ovf:capacity=\"8\"/></DiskSection>\n</Envelope>\n",
        file, disk);
}

#define VMDK_URI                                                                                   \
    "ovf:format=\"http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized\""

static void save(struct ground *t, const char *name, GByteArray *tar)
{
    g_assert_true(
        g_file_set_contents(ground_path(t, name), (const char *)tar->data, tar->len, NULL));
    g_byte_array_unref(tar);
}

/* A streamed disk of 3 MiB with 0x5a from 1 MiB to 2 MiB. */
static char *disk_bytes(struct ground *t, gsize *ret_len)
{
    char *bytes;
    ground_create(t, "vmdk", "d.vmdk", 3 * MIB, NULL, "{\"subformat\": \"streamOptimized\"}");
    struct node *n = ground_open(t, "vmdk", "d.vmdk", NODE_RW);
    ground_write(n, MIB, MIB, 0x5a);
    node_unref(n);
    g_assert_true(g_file_get_contents(ground_path(t, "d.vmdk"), &bytes, ret_len, NULL));
    return bytes;
}

static void make_ova(struct ground *t, const char *name, bool wrong_digest, bool long_name)
{
    gsize len;
    g_autofree char *disk = disk_bytes(t, &len);
    const char *disk_name =
        long_name
            ? "a-name-that-is-longer-than-the-hundred-bytes-that-the-header-of-a-tar-archive-has-"
              "for-the-name-of-a-member-disk1.vmdk"
            : "disk1.vmdk";
    g_autofree char *file = g_strdup_printf("ovf:href=\"%s\"", disk_name);
    g_autofree char *ovf =
        envelope(file, "ovf:capacity=\"3\" ovf:capacityAllocationUnits=\"byte * 2^20\" " VMDK_URI);
    g_autofree char *ovf_sum = g_compute_checksum_for_string(G_CHECKSUM_SHA1, ovf, -1);
    if (wrong_digest)
        disk[len - 2000]++;
    g_autofree char *disk_sum =
        g_compute_checksum_for_data(G_CHECKSUM_SHA256, (const guchar *)disk, len);
    if (wrong_digest)
        disk[len - 2000]--;
    g_autofree char *mf =
        g_strdup_printf("SHA1(vm.ovf)= %s\r\nSHA256(%s)= %s\n", ovf_sum, disk_name, disk_sum);
    GByteArray *tar = g_byte_array_new();
    put_member(tar, "vm.ovf", ovf, strlen(ovf));
    put_member(tar, "vm.mf", mf, strlen(mf));
    if (long_name) {
        g_autofree char *path = g_strdup_printf("path=%s\n", disk_name);
        size_t size = strlen(path) + 4;
        g_autofree char *record = g_strdup_printf("%zu %s", size, path);
        put_header(tar, "PaxHeaders/x", strlen(record), 'x', false);
        put_bytes(tar, record, strlen(record));
    }
    put_header(tar, disk_name, len, '0', !long_name);
    put_bytes(tar, disk, len);
    put_end(tar);
    save(t, name, tar);
}

/* ---- good ones ---- */

static void extract(struct ground *t)
{
    for (unsigned i = 0; i < 2; i++) {
        g_autoptr(GError) error = NULL;
        make_ova(t, "vm.ova", false, i);
        struct ova *o = ova_open(t->graph, ground_path(t, "vm.ova"), &error);
        g_assert_no_error(error);
        unsigned count;
        const struct ova_disk *d = ova_disks(o, &count);
        g_assert_cmpuint(count, ==, 1);
        g_assert_cmpstr(ova_description_name(o), ==, "vm.ovf");
        g_assert_true(g_str_has_suffix(d->name, "disk1.vmdk"));
        g_assert_cmpstr(d->format, ==, "vmdk");
        g_assert_cmpstr(d->digest_name, ==, "SHA256");
        g_assert_cmpuint(d->capacity_bytes, ==, 3 * MIB);
        g_assert_cmpint(ova_find_disk(o, "vmdisk1", NULL), ==, 0);
        g_assert_cmpint(ova_find_disk(o, "0", NULL), ==, 0);
        g_assert_cmpint(ova_find_disk(o, "1", &error), ==, -1);
        g_assert_nonnull(strstr(error->message, "disk1.vmdk"));
        g_clear_error(&error);
        g_assert_true(ova_verify(o, -1, NULL, &error));
        g_assert_true(ova_verify(o, 0, NULL, &error));
        struct node *n = ova_open_disk(o, 0, NULL, &error);
        g_assert_no_error(error);
        ova_close(o); /* the disk lives on */
        g_assert_cmpuint(node_size(n), ==, 3 * MIB);
        ground_expect(n, 0, MIB, 0);
        ground_expect(n, MIB, MIB, 0x5a);
        ground_expect(n, 2 * MIB, MIB, 0);
        node_unref(n);
    }
    uint8_t head[512];
    ground_peek(t, "vm.ova", 0, head, sizeof(head));
    g_assert_true(ova_probe(head, sizeof(head)));
    head[3] = 'x';
    g_assert_false(ova_probe(head, sizeof(head)));
}

static void wrong_digest(struct ground *t)
{
    g_autoptr(GError) error = NULL;
    make_ova(t, "vm.ova", true, false);
    struct ova *o = ova_open(t->graph, ground_path(t, "vm.ova"), &error);
    g_assert_no_error(error);
    g_assert_true(ova_verify(o, -1, NULL, &error));
    g_assert_false(ova_verify(o, 0, NULL, &error));
    g_assert_nonnull(strstr(error->message, "not what the manifest says"));
    ova_close(o);
}

/* ---- hostile ones ---- */

static void refused(struct ground *t, GByteArray *tar, const char *why)
{
    g_autoptr(GError) error = NULL;
    save(t, "bad.ova", tar);
    struct ova *o = ova_open(t->graph, ground_path(t, "bad.ova"), &error);
    g_assert_null(o);
    if (!strstr(error->message, why))
        g_error("'%s' does not say '%s'", error->message, why);
}

static GByteArray *with_description(const char *xml)
{
    GByteArray *tar = g_byte_array_new();
    put_member(tar, "vm.ovf", xml, strlen(xml));
    return tar;
}

static void refused_archives(struct ground *t)
{
    GByteArray *tar = with_description("<Envelope/>");
    tar->data[3] ^= 1;
    refused(t, tar, "tar header at 0 is broken");
    tar = g_byte_array_new();
    put_header(tar, "vm.ovf", 1ULL << 33, '0', false);
    refused(t, tar, "reaches behind the archive's end");
    tar = g_byte_array_new();
    put_header(tar, "vm.ovf", UINT64_MAX, '0', true);
    refused(t, tar, "tar header at 0 is broken");
    tar = g_byte_array_new();
    put_member(tar, "x", "x", 1);
    put_member(tar, "x", "y", 1);
    refused(t, tar, "is there twice");
    tar = g_byte_array_new();
    put_member(tar, "x", "x", 1);
    refused(t, tar, "no member is a description");
    tar = g_byte_array_new();
    put_header(tar, "p", 10, 'x', false);
    put_bytes(tar, "99 path=x\n", 10);
    refused(t, tar, "extension header");
    tar = g_byte_array_new();
    for (unsigned i = 0; i < 1100; i++) {
        g_autofree char *name = g_strdup_printf("%u", i);
        put_header(tar, name, 0, '0', false);
    }
    refused(t, tar, "one member too many");
    tar = with_description("<Envelope/>");
    put_member(tar, "vm.mf", "SHA256(x)= 12\n", 14);
    refused(t, tar, "is no digest");
}

static void refused_descriptions(struct ground *t)
{
    refused(t, with_description("<Envelope>"), "not well-formed");
    refused(t, with_description("<Machine/>"), "no OVF envelope");
    refused(t,
            with_description("<!DOCTYPE Envelope [<!ENTITY a \"aaaa\"><!ENTITY b "
                             "\"&a;&a;\">]><Envelope x=\"&b;\"/>"),
            "document type");
    refused(t, with_description("<!DOCTYPE Envelope SYSTEM \"file:///etc/passwd\"><Envelope/>"),
            "document type");
    refused(
        t,
        with_description("<Envelope><DiskSection><Disk fileRef=\"f\"/></DiskSection></Envelope>"),
        "'f'");
    GString *many =
        g_string_new("<Envelope><References><File id=\"f\" href=\"x\"/></References><DiskSection>");
    for (unsigned i = 0; i < 300; i++)
        g_string_append(many, "<Disk fileRef=\"f\"/>");
    g_string_append(many, "</DiskSection></Envelope>");
    refused(t, with_description(many->str), "over 256 disks");
    g_string_free(many, TRUE);
}

static void refused_disk(struct ground *t, const char *file, const char *disk, const char *bytes,
                         const char *why)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *xml = envelope(file, disk);
    GByteArray *tar = with_description(xml);
    put_member(tar, "d", bytes, strlen(bytes));
    save(t, "bad.ova", tar);
    struct ova *o = ova_open(t->graph, ground_path(t, "bad.ova"), &error);
    g_assert_no_error(error);
    struct node *n = ova_open_disk(o, 0, NULL, &error);
    g_assert_null(n);
    if (!strstr(error->message, why))
        g_error("'%s' does not say '%s'", error->message, why);
    ova_close(o);
}

static void refused_disks(struct ground *t)
{
    refused_disk(t, "ovf:href=\"d\" ovf:compression=\"gzip\"", VMDK_URI, "x",
                 "compressed as a whole");
    refused_disk(t, "ovf:href=\"d\" ovf:chunkSize=\"1\"", VMDK_URI, "x", "chunks");
    refused_disk(t, "ovf:href=\"d\"", "ovf:parentRef=\"p\" " VMDK_URI, "x",
                 "child of another disk");
    refused_disk(t, "ovf:href=\"e\"", VMDK_URI, "x", "not in the archive");
    refused_disk(t, "ovf:href=\"d\"", "ovf:format=\"what\"", "x", "not known");
    /* a descriptor that would read the host's files */
    refused_disk(
        t, "ovf:href=\"d\"", VMDK_URI,
        "# Disk "
        "DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n"
        "RW 1 FLAT \"/etc/passwd\" 0\n",
        "may bring in no further file");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    scratch_folder("ruche-ova");
    ground_add("/ova/extract", extract);
    ground_add("/ova/wrong-digest", wrong_digest);
    ground_add("/ova/refused-archives", refused_archives);
    ground_add("/ova/refused-descriptions", refused_descriptions);
    ground_add("/ova/refused-disks", refused_disks);
    return g_test_run();
}
