/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Histograms of how long requests took. */
#include "image/stats.h"

#include <stdlib.h>
#include <string.h>

struct latency_histogram *histogram_new(const uint64_t *bounds, unsigned count)
{
    if (!count || count > HISTOGRAM_BOUNDS_MAX)
        return NULL;
    for (unsigned i = 0; i < count; i++)
        if (bounds[i] <= (i ? bounds[i - 1] : 0))
            return NULL;
    struct latency_histogram *h = calloc(1, sizeof(*h) + (2 * count + 1) * sizeof(uint64_t));
    if (!h)
        return NULL;
    h->bound_count = count;
    h->bounds = (uint64_t *)(h + 1);
    h->bins = h->bounds + count;
    memcpy(h->bounds, bounds, count * sizeof(uint64_t));
    return h;
}

void histogram_free(struct latency_histogram *h)
{
    free(h);
}

void histogram_count(struct latency_histogram *h, uint64_t ns)
{
    unsigned low = 0, high = h->bound_count;
    while (low < high) { /* the first bound above ns is in [low, high] */
        unsigned mid = (low + high) / 2;
        if (ns < h->bounds[mid])
            high = mid;
        else
            low = mid + 1;
    }
    h->bins[low]++;
}
