/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache of packed constants: from (address, shape, strides, dtype) to panels. Only storage that
 * never changes may enter, since temporaries reuse addresses. Filled in the template and inherited
 * by its forks as shared pages; the lookup is a hash and one comparison. Owns the packed copies.
 */
#include <stdlib.h>
#include <string.h>

#include "runtime/alloc.h"
#include "runtime/ops/heavy.h"
#include "runtime/tensor.h"

#define SLOTS 4096 /* a power of two; at most half are used */

struct slot {
	struct pb_pack_key key;
	void *packed;
	size_t bytes;
};

static struct slot slots[SLOTS];
static struct pb_rt_cache_stats stats;
static uint64_t limit_bytes = UINT64_MAX;

static inline size_t hash(const struct pb_pack_key *key)
{
	uint64_t h = (uint64_t)(uintptr_t)key->p >> 4;

	h = (h ^ (uint64_t)key->v[0] * 0x9e3779b97f4a7c15ull) +
	    (uint64_t)key->v[1] * 0xff51afd7ed558ccdull;
	h += (uint64_t)key->v[2];
	h *= 0x9e3779b97f4a7c15ull;
	return (size_t)(h >> 40) & (SLOTS - 1);
}

static inline bool same(const struct pb_pack_key *a, const struct pb_pack_key *b)
{
	return a->p == b->p && a->v[0] == b->v[0] && a->v[1] == b->v[1] && a->v[2] == b->v[2] &&
	       a->v[3] == b->v[3] && a->v[4] == b->v[4] && a->v[5] == b->v[5];
}

/* The packed form, or the free slot for it. */
static const void *find(const struct pb_pack_key *key, struct slot **ret_free)
{
	size_t i = hash(key);

	for (; slots[i].packed; i = (i + 1) & (SLOTS - 1)) {
		if (same(&slots[i].key, key)) {
			stats.hits++;
			return slots[i].packed;
		}
	}
	stats.misses++;
	*ret_free = &slots[i];
	return NULL;
}

/* Memory for a new entry, NULL when full or refused. Not from the tensor pool: it outlives runs. */
static void *insert(struct slot *slot, const struct pb_pack_key *key, size_t bytes)
{
	void *packed = NULL;

	if (stats.entries < SLOTS / 2 && bytes <= limit_bytes && stats.bytes <= limit_bytes - bytes &&
	    pb_rt_memory_try_charge(bytes)) {
		packed = aligned_alloc(64, (bytes + 127) & ~(size_t)63);
		if (!packed)
			pb_rt_memory_uncharge(bytes);
	}
	if (!packed) {
		stats.refused++;
		return NULL;
	}
	*slot = (struct slot){*key, packed, bytes};
	stats.entries++;
	stats.bytes += bytes;
	return packed;
}

static bool never_changes(const struct AtenTensorOpaque *t)
{
	return t->storage && t->storage->constant;
}

const void *pb_gemm_constant(const struct AtenTensorOpaque *t, const struct pb_gemm_in *b,
			     int64_t k, int64_t n)
{
	const struct pb_pack_key key = {b->p, {k, n, b->rs, b->cs, b->dtype, 0}};
	struct slot *slot;
	const void *packed;
	void *fresh;

	if (!never_changes(t) || k <= 0 || n <= 0)
		return NULL;
	packed = find(&key, &slot);
	if (packed)
		return packed;
	fresh = insert(slot, &key, pb_gemm_packed_bytes(k, n, b->dtype));
	if (fresh)
		pb_gemm_pack(b, k, n, fresh);
	return fresh;
}

const void *pb_pack_constant(const struct AtenTensorOpaque *t, const struct pb_pack_key *key,
			     size_t bytes, void (*fill)(const void *ctx, void *dst),
			     const void *ctx)
{
	struct slot *slot;
	const void *packed;
	void *fresh;

	if (!never_changes(t))
		return NULL;
	packed = find(key, &slot);
	if (packed)
		return packed;
	fresh = insert(slot, key, bytes);
	if (fresh)
		fill(ctx, fresh);
	return fresh;
}

/* Takes one out and closes the gap: a search stops at the first free slot. */
static void remove_at(size_t i)
{
	free(slots[i].packed);
	pb_rt_memory_uncharge(slots[i].bytes);
	stats.entries--;
	stats.bytes -= slots[i].bytes;
	for (size_t k = (i + 1) & (SLOTS - 1); slots[k].packed; k = (k + 1) & (SLOTS - 1)) {
		const size_t home = hash(&slots[k].key);

		/* It may move to the gap unless its search begins after that. */
		if (((k - home) & (SLOTS - 1)) >= ((k - i) & (SLOTS - 1))) {
			slots[i] = slots[k];
			i = k;
		}
	}
	slots[i] = (struct slot){.packed = NULL};
}

void pb_rt_cache_remove(uintptr_t begin, uintptr_t end)
{
	/* Another one may have moved here: look again before going on. */
	for (size_t i = 0; i < SLOTS;) {
		const uintptr_t at = (uintptr_t)slots[i].key.p;

		if (slots[i].packed && at >= begin && at < end)
			remove_at(i);
		else
			i++;
	}
}

void pb_rt_cache_clear(void)
{
	for (size_t i = 0; i < SLOTS; i++)
		free(slots[i].packed);
	memset(slots, 0, sizeof(slots));
	pb_rt_memory_uncharge(stats.bytes);
	stats.entries = 0;
	stats.bytes = 0;
}

void pb_rt_cache_set_limit(uint64_t bytes)
{
	limit_bytes = bytes;
}

void pb_rt_cache_stats(struct pb_rt_cache_stats *ret_stats)
{
	*ret_stats = stats;
}
