/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A machine on up to MAX_NICS networks that does what frames of Ethernet type 0x88b5 tell it, and
 * prints it: 'H' TEXT is heard; 'S' ADDRESS TEXT is sent on to that address, as 'H' TEXT. It runs
 * until it is ended.
 *
 * Spec      VIRTIO 1.2, 5.1.
 * Trust     Frames are anybody's: their lengths are checked, texts are cut at what is no letter or
 * digit.
 */
#include "lib/virtio.h"

enum { MAX_NICS = 8, BUFFERS = 16, HEADER = 12, ROOM = 2048, ETHERNET = 14, MAX_TEXT = 40, VECTOR = 0x50, TICK = 2000000 };

struct nic {
    struct virtio d;
    struct vq rx, tx;
    uint8_t *in[VQ_MAX], *out; /* by the head of their chain */
};

static struct nic nics[MAX_NICS];

static const char *text_of_mac(const volatile uint8_t *mac, char ret[18])
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < 6; i++) {
        ret[3 * i] = digits[mac[i] >> 4];
        ret[3 * i + 1] = digits[mac[i] & 15];
        ret[3 * i + 2] = i < 5 ? ':' : 0;
    }
    return ret;
}

static void copy_text(const uint8_t *from, uint32_t len, char ret[MAX_TEXT + 1])
{
    unsigned n = 0;
    for (; n < len && n < MAX_TEXT; n++) {
        uint8_t c = from[n];
        if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z'))
            break;
        ret[n] = (char)c;
    }
    ret[n] = 0;
}

static void send(struct nic *n, const uint8_t *to, const char *text)
{
    uint8_t *p = n->out + HEADER;
    memset(n->out, 0, HEADER + 60);
    memcpy(p, to, 6);
    for (int i = 0; i < 6; i++)
        p[6 + i] = n->d.config[i];
    memcpy(p + 12, "\x88\xb5H", 3);
    for (unsigned i = 0; text[i]; i++)
        p[15 + i] = (uint8_t)text[i];
    struct vbuf b = { n->out, HEADER + 60 };
    vq_add(&n->tx, &b, 1, 0);
    vq_kick(&n->tx);
    vq_wait(&n->tx, NULL, 60000);
}

static void take(struct nic *n, const uint8_t *p, uint32_t len)
{
    char text[MAX_TEXT + 1], own[18], other[18];
    text_of_mac(n->d.config, own);
    if (len < ETHERNET + 8 || p[12] != 0x88 || p[13] != 0xb5)
        return;
    if (p[ETHERNET] == 'H') {
        copy_text(p + ETHERNET + 1, len - ETHERNET - 1, text);
        print("%s heard %s from %s\n", own, text, text_of_mac(p + 6, other));
    } else if (p[ETHERNET] == 'S') {
        copy_text(p + ETHERNET + 7, len - ETHERNET - 7, text);
        send(n, p + ETHERNET + 1, text);
        print("%s sent %s to %s\n", own, text, text_of_mac(p + ETHERNET + 1, other));
    }
}

static bool begin(struct nic *n, unsigned number)
{
    if (!virtio_find(VIRTIO_ID_NET, number, &n->d))
        return false;
    check(virtio_begin(&n->d, 1ul << 5) && vq_init(&n->rx, &n->d, 0, BUFFERS) &&
              vq_init(&n->tx, &n->d, 1, BUFFERS),
          "network device %u begins", number);
    virtio_ready(&n->d);
    n->out = alloc_pages(1);
    for (int i = 0; i < BUFFERS; i++) {
        struct vbuf b = { alloc_pages(1), ROOM };
        int head = vq_add(&n->rx, &b, 0, 1);
        if (head >= 0)
            n->in[head] = b.p;
    }
    vq_kick(&n->rx);
    return true;
}

static bool poll(struct nic *n)
{
    uint32_t len = 0;
    int head = vq_get(&n->rx, &len);
    if (head < 0)
        return false;
    struct vbuf b = { n->in[head], ROOM };
    if (len > HEADER && len <= ROOM)
        take(n, n->in[head] + HEADER, len - HEADER);
    head = vq_add(&n->rx, &b, 0, 1);
    if (head >= 0)
        n->in[head] = b.p;
    vq_kick(&n->rx);
    return true;
}

/* Others need the processor more: between two looks it is halted. */
static void tick(struct frame *f)
{
    apic_eoi();
}

static void begin_ticks(void)
{
    apic_enable();
    trap_set(VECTOR, tick);
    apic_write(APIC_TIMER_DIV, 0xb);
    apic_write(APIC_LVT_TIMER, 0x20000 | VECTOR);
    apic_write(APIC_TIMER_INIT, TICK);
}

void test_main(void)
{
    unsigned count = 0;
    begin_ticks();
    while (count < MAX_NICS && begin(&nics[count], count))
        count++;
    print("ready with %u\n", count);
    for (;;) {
        bool any = false;
        for (unsigned i = 0; i < count; i++)
            any |= poll(&nics[i]);
        if (!any)
            sti_hlt_cli();
    }
}
