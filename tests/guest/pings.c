/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest that sends frames to others of its kind, when it is told to, and answers theirs.
 *
 * On the serial port: 'p' asks the others over each pair of queues, again and again until one has answered: "pong PAIR
 * NUMBER". 'r' resets the card and begins anew: "card again". A change of the link is said: "link up", "link down".
 *
 * me=     A number in the card's frames; frames of the same number are none of ours.
 * pairs=  Pairs of queues to use (1).
 * packed= Packed rings.
 * late=   Does not begin before the link is up.
 *
 * Spec      VIRTIO 1.2, 5.1.
 */
#include "lib/virtio.h"

#define F_STATUS  (1ul << 16)
#define F_CTRL_VQ (1ul << 17)
#define F_MQ      (1ul << 22)
#define SERIAL    0x3f8
#define HEADER    12
#define FRAME     64
#define ROOM      2048
#define DEPTH     32
#define MAX_PAIRS 4
#define AGAIN_MS  20

enum { ASK = 1, ANSWER = 2 };

struct net_frame {
    uint8_t header[HEADER];
    uint8_t to[6], from[6], type[2];
    uint8_t kind, me, asked, pair;
    uint32_t number;
    uint8_t padding[FRAME];
} __attribute__((packed));

static struct virtio card;
static struct vq rx[MAX_PAIRS], tx[MAX_PAIRS], ctrl;
static struct net_frame *out[MAX_PAIRS][DEPTH];
static uint8_t *in[MAX_PAIRS][DEPTH], *in_by_head[MAX_PAIRS][VQ_MAX];
static unsigned pairs, next_out[MAX_PAIRS];
static uint8_t me;
static bool link;

static bool link_now(void)
{
    return *(volatile uint16_t *)(card.config + 6) & 1;
}

static void give(unsigned pair, uint8_t *room)
{
    struct vbuf buf = {room, ROOM};
    int head = vq_add(&rx[pair], &buf, 0, 1);
    if (head >= 0)
        in_by_head[pair][head % VQ_MAX] = room;
    vq_kick(&rx[pair]);
}

static void send(unsigned pair, uint8_t kind, uint8_t asked, uint32_t number)
{
    struct net_frame *f = out[pair][next_out[pair]++ % DEPTH];
    while (vq_get(&tx[pair], NULL) >= 0)
        continue;
    memset(f, 0, sizeof(*f));
    memset(f->to, 0xff, sizeof(f->to));
    f->from[0] = 0x52;
    f->from[5] = me;
    f->type[0] = 0x88;
    f->type[1] = 0xb5;
    f->kind = kind;
    f->me = me;
    f->asked = asked;
    f->pair = (uint8_t)pair;
    f->number = number;
    struct vbuf buf = {f, HEADER + FRAME};
    if (vq_add(&tx[pair], &buf, 1, 0) >= 0)
        vq_kick(&tx[pair]);
}

/* True: the answer to `number`. */
static bool receive(unsigned pair, uint32_t number)
{
    uint32_t len;
    bool answered = false;
    for (int head; (head = vq_get(&rx[pair], &len)) >= 0;) {
        uint8_t *room = in_by_head[pair][head % VQ_MAX];
        const struct net_frame *f = (const struct net_frame *)room;
        bool ours = len >= HEADER + 22 && f->type[0] == 0x88 && f->type[1] == 0xb5 && f->me != me;
        if (ours && f->kind == ASK)
            send(pair, ANSWER, f->me, f->number);
        answered |= ours && f->kind == ANSWER && f->asked == me && f->number == number;
        give(pair, room);
    }
    return answered;
}

static void serve(void)
{
    for (unsigned i = 0; i < pairs; i++)
        receive(i, 0);
    if (link_now() != link) {
        link = !link;
        print("link %s\n", link ? "up" : "down");
    }
}

static void ask(void)
{
    static uint32_t number;
    number++;
    for (unsigned pair = 0; pair < pairs; pair++) {
        uint64_t last = 0;
        bool answered = false;
        while (!answered) {
            if (rdtsc() - last > AGAIN_MS * tsc_khz()) {
                send(pair, ASK, 0, number);
                last = rdtsc();
            }
            for (unsigned i = 0; i < pairs; i++)
                answered |= receive(i, number) && i == pair;
        }
        print("pong %u %u\n", pair, number);
    }
}

static bool use_pairs(uint16_t max)
{
    static uint8_t command[2] = {4, 0}, ack;
    static uint16_t count;
    struct vbuf parts[] = {{command, 2}, {&count, 2}, {&ack, 1}};
    count = (uint16_t)pairs;
    ack = 0xff;
    if (!vq_init(&ctrl, &card, (uint16_t)(2 * max), 8))
        return false;
    virtio_ready(&card);
    vq_add(&ctrl, parts, 2, 1);
    vq_kick(&ctrl);
    return vq_wait(&ctrl, NULL, 20000) >= 0 && !*(volatile uint8_t *)&ack;
}

static bool begin(uint64_t wanted)
{
    if (!virtio_begin(&card, wanted))
        return false;
    uint16_t max = card.features & F_MQ ? *(volatile uint16_t *)(card.config + 8) : 1;
    if (max < pairs)
        return false;
    for (uint16_t i = 0; i < pairs; i++) {
        if (!vq_init(&rx[i], &card, 2 * i, DEPTH) || !vq_init(&tx[i], &card, 2 * i + 1, DEPTH))
            return false;
    }
    if (pairs == 1)
        virtio_ready(&card);
    else if (!use_pairs(max))
        return false;
    for (unsigned i = 0; i < pairs; i++)
        for (unsigned n = 0; n < DEPTH; n++)
            give(i, in[i][n]);
    return true;
}

void test_main(void)
{
    uint64_t wanted = F_STATUS;
    me = (uint8_t)cmdline_number("me", 1);
    pairs = (unsigned)cmdline_number("pairs", 1);
    wanted |= pairs > 1 ? F_MQ | F_CTRL_VQ : 0;
    wanted |= cmdline_number("packed", 0) ? F_PACKED : 0;
    for (unsigned i = 0; i < MAX_PAIRS; i++)
        for (unsigned n = 0; n < DEPTH; n++) {
            in[i][n] = alloc_aligned(ROOM, ROOM);
            out[i][n] = alloc_aligned(256, 256);
        }
    if (!check(virtio_find(VIRTIO_ID_NET, 0, &card), "the card is there"))
        finish();
    while (cmdline_number("late", 0) && !link_now())
        pause();
    if (!check(begin(wanted), "the card agrees"))
        finish();
    link = link_now();
    print("card, link %s\n", link ? "up" : "down");
    for (;;) {
        serve();
        if (!(in8(SERIAL + 5) & 1))
            continue;
        uint8_t key = in8(SERIAL);
        if (key == 'p')
            ask();
        else if (key == 'r' && check(begin(wanted), "the card agrees again"))
            print("card again\n");
    }
}
