/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks are kept in lists by size class and handed out again, so that a model that repeats itself
 * makes no system call and touches no new page. Classes are four to a power of two: at most a fifth
 * of a small block is unused.
 *
 * A large block that is wanted may be cut from a larger one that is idle, and is joined with its
 * idle neighbours when it comes back: a model then holds about what it needs at once, and not the
 * most of each size. Whoever begins with nothing, as a worker does after the template's dry run,
 * asks for all of that as one piece, which is cut best. Small ones, which would gain little, are spared that work. What the system
 * gave and no recent run has used goes back: a model whose shapes change would else keep it.
 */
#include "runtime/alloc.h"

#include <stdlib.h>

#include "runtime/hooks.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define POISON(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define POISON(p, n) ((void)0)
#define UNPOISON(p, n) ((void)0)
#endif

#define N_CLASSES 240
#define MAX_BYTES (UINT64_C(1) << 46)
#define AGE_RUNS 64

/* In front of every block, a cache line of its own. */
struct block {
	struct block *next, *prev;     /* in the list, while idle */
	struct block *before, *behind; /* cut from the same memory; NULL at its ends */
	uint64_t capacity;
	uint32_t last_run;
	uint8_t class; /* of the lists: the largest that the capacity has room for */
	bool idle;
	char pad[PB_RT_ALIGN - 46];
};
_Static_assert(sizeof(struct block) == PB_RT_ALIGN, "data follows the header and must be aligned");

#define LARGE (UINT64_C(64) << 10)
#define PAGE UINT64_C(4096)

static struct block *idle[N_CLASSES];
static uint64_t idle_classes[(N_CLASSES + 63) / 64]; /* that have a block */
static struct {
	uint64_t held, in_use, most; /* bytes of large blocks: from the system, now in use, ever */
} large;
static uint64_t held, limit;
static uint32_t runs;
static bool refused;

/* ---- the limit ---- */

void *pb_rt_memory_refuse(uint64_t bytes)
{
	refused = true;
	if (limit)
		pb_rt_fail("not enough memory: %llu bytes asked for, %llu of %llu in use",
			   (unsigned long long)bytes, (unsigned long long)held,
			   (unsigned long long)limit);
	else
		pb_rt_fail("not enough memory: %llu bytes asked for", (unsigned long long)bytes);
	return NULL;
}

static bool fits(uint64_t bytes)
{
	return !limit || (bytes <= limit && held <= limit - bytes);
}

bool pb_rt_memory_try_charge(uint64_t bytes)
{
	if (!fits(bytes))
		pb_rt_alloc_trim();
	if (!fits(bytes))
		return false;
	held += bytes;
	return true;
}

bool pb_rt_memory_charge(uint64_t bytes)
{
	if (pb_rt_memory_try_charge(bytes))
		return true;
	pb_rt_memory_refuse(bytes);
	return false;
}

void pb_rt_memory_uncharge(uint64_t bytes)
{
	held -= bytes;
}

uint64_t pb_rt_memory_held(void)
{
	return held;
}

bool pb_rt_memory_refused(void)
{
	return refused;
}

void pb_rt_memory_clear_refused(void)
{
	refused = false;
}

void pb_rt_set_memory_limit(uint64_t bytes)
{
	limit = bytes;
}

/* ---- blocks ---- */

/* Memory from the system, charged; retried once after giving back what is idle. */
static void *system_new(uint64_t bytes)
{
	void *p;

	if (!pb_rt_memory_charge(bytes))
		return NULL;
	p = aligned_alloc(PB_RT_ALIGN, bytes);
	if (!p) {
		pb_rt_alloc_trim();
		p = aligned_alloc(PB_RT_ALIGN, bytes);
	}
	if (!p) {
		pb_rt_memory_uncharge(bytes);
		pb_rt_memory_refuse(bytes);
	}
	return p;
}

static void system_free(struct block *b)
{
	pb_rt_memory_uncharge(sizeof(*b) + b->capacity);
	if (b->capacity >= LARGE)
		large.held -= b->capacity;
	UNPOISON(b + 1, b->capacity);
	free(b);
}

/* Class of a size, and the bytes that blocks of the class have. */
static uint32_t size_class(uint64_t bytes, uint64_t *ret_capacity)
{
	uint64_t units = bytes ? (bytes + PB_RT_ALIGN - 1) / PB_RT_ALIGN : 1, q;
	int shift;

	if (units <= 4) {
		*ret_capacity = units * PB_RT_ALIGN;
		return (uint32_t)units - 1;
	}
	shift = 61 - __builtin_clzll(units - 1);
	q = ((units - 1) >> shift) + 1; /* 5 to 8 */
	*ret_capacity = (q << shift) * PB_RT_ALIGN;
	return (uint32_t)(4 + shift * 4 + (q - 5));
}

/* The class whose blocks are no larger than this block. */
static uint32_t class_of_capacity(uint64_t capacity)
{
	uint64_t rounded;
	const uint32_t class = size_class(capacity, &rounded);

	return rounded > capacity ? class - 1 : class;
}

static void list_add(struct block *b)
{
	const uint32_t c = b->class;

	b->idle = true;
	b->prev = NULL;
	b->next = idle[c];
	if (b->next)
		b->next->prev = b;
	idle[c] = b;
	idle_classes[c / 64] |= UINT64_C(1) << c % 64;
}

static void list_remove(struct block *b)
{
	const uint32_t c = b->class;

	b->idle = false;
	if (b->next)
		b->next->prev = b->prev;
	if (b->prev)
		b->prev->next = b->next;
	else
		idle[c] = b->next;
	if (!idle[c])
		idle_classes[c / 64] &= ~(UINT64_C(1) << c % 64);
}

/* An idle block that has room for a large one, of the lowest class that has any. */
static struct block *find_large(uint64_t capacity)
{
	const uint32_t class = class_of_capacity(capacity), above = class + 1;
	uint64_t word = idle_classes[above / 64] & ~UINT64_C(0) << above % 64;

	for (struct block *b = idle[class]; b; b = b->next)
		if (b->capacity >= capacity)
			return b;
	for (uint32_t i = above / 64;;) {
		if (word)
			return idle[i * 64 + (uint32_t)__builtin_ctzll(word)];
		if (++i == sizeof(idle_classes) / sizeof(idle_classes[0]))
			return NULL;
		word = idle_classes[i];
	}
}

/* What @b has too much becomes a block of its own. */
static void cut(struct block *b, uint64_t capacity)
{
	struct block *rest = (struct block *)((char *)(b + 1) + capacity);

	if (b->capacity - capacity < LARGE)
		return;
	UNPOISON(rest, sizeof(*rest));
	*rest = (struct block){.before = b, .behind = b->behind, .last_run = b->last_run};
	rest->capacity = b->capacity - capacity - sizeof(*rest);
	rest->class = (uint8_t)class_of_capacity(rest->capacity);
	if (rest->behind)
		rest->behind->before = rest;
	b->behind = rest;
	b->capacity = capacity;
	b->class = (uint8_t)class_of_capacity(capacity);
	list_add(rest);
}

/* @b takes in the block behind it. */
static void join(struct block *b)
{
	struct block *gone = b->behind;

	b->capacity += sizeof(*gone) + gone->capacity;
	b->class = (uint8_t)class_of_capacity(b->capacity);
	b->behind = gone->behind;
	if (b->behind)
		b->behind->before = b;
	POISON(gone, sizeof(*gone));
}

/* The first large one: all that was ever in use, unless that is much of what is allowed: it cannot go back in parts. */
static uint64_t first_large(uint64_t capacity)
{
	const uint64_t all = (large.most + PAGE - 1) / PAGE * PAGE;

	if (large.held || all <= capacity)
		return capacity;
	return !limit || (all < limit / 4 && fits(all + sizeof(struct block))) ? all : capacity;
}

static struct block *new_from_system(uint64_t capacity)
{
	const uint64_t bytes = capacity >= LARGE ? first_large(capacity) : capacity;
	struct block *b = system_new(sizeof(*b) + bytes);

	if (!b)
		return NULL;
	*b = (struct block){.capacity = bytes, .class = (uint8_t)class_of_capacity(bytes)};
	if (bytes >= LARGE)
		large.held += bytes;
	return b;
}

void *pb_rt_block_new(uint64_t bytes)
{
	uint64_t capacity;
	uint32_t class;
	struct block *b;

	if (bytes > MAX_BYTES)
		return pb_rt_memory_refuse(bytes);
	class = size_class(bytes, &capacity);
	if (capacity >= LARGE)
		capacity = bytes <= LARGE ? LARGE : (bytes + PAGE - 1) / PAGE * PAGE;
	b = capacity >= LARGE ? find_large(capacity) : idle[class];
	if (b)
		list_remove(b);
	else
		b = new_from_system(capacity);
	if (!b)
		return NULL;
	if (capacity >= LARGE) {
		cut(b, capacity);
		large.in_use += b->capacity + sizeof(*b);
		if (large.in_use > large.most)
			large.most = large.in_use;
	}
	POISON(b + 1, b->capacity);
	UNPOISON(b + 1, bytes);
	return b + 1;
}

void pb_rt_block_free(void *p)
{
	struct block *b;

	if (!p)
		return;
	b = (struct block *)p - 1;
	POISON(p, b->capacity);
	b->last_run = runs;
	if (b->capacity >= LARGE)
		large.in_use -= b->capacity + sizeof(*b);
	if (b->behind && b->behind->idle) {
		list_remove(b->behind);
		join(b);
	}
	if (b->before && b->before->idle) {
		b = b->before;
		list_remove(b);
		b->last_run = runs;
		join(b);
	}
	list_add(b);
}

/* Only what the system gave as one can go back, as one. */
static void give_back(uint32_t older_than)
{
	for (int i = 0; i < N_CLASSES; i++) {
		struct block *next;

		for (struct block *b = idle[i]; b; b = next) {
			next = b->next;
			if (b->before || b->behind || runs - b->last_run < older_than)
				continue;
			list_remove(b);
			system_free(b);
		}
	}
}

void pb_rt_alloc_trim(void)
{
	give_back(0);
}

void pb_rt_alloc_age(void)
{
	if (++runs % AGE_RUNS == 0)
		give_back(AGE_RUNS);
}

void *pb_rt_scratch(size_t bytes)
{
	return pb_rt_block_new(bytes);
}

void pb_rt_scratch_free(void *p)
{
	pb_rt_block_free(p);
}

/* ---- headers: carved from chunks that are never given back ---- */

#define PER_CHUNK 64

struct tensor_slot {
	union {
		struct pb_rt_tensor tensor;
		struct tensor_slot *next;
	};
};

struct tensor_chunk {
	struct tensor_slot slots[PER_CHUNK];
} __attribute__((aligned(PB_RT_ALIGN)));

struct storage_chunk {
	struct storage_chunk *next;
	struct pb_rt_storage slots[PER_CHUNK];
} __attribute__((aligned(PB_RT_ALIGN)));

static struct tensor_slot *free_tensors;
static struct pb_rt_storage *free_storages; /* linked through base */
static struct storage_chunk *storage_chunks;

static bool more_tensors(void)
{
	struct tensor_chunk *c = system_new(sizeof(*c));

	for (int i = 0; c && i < PER_CHUNK; i++) {
		c->slots[i].next = free_tensors;
		free_tensors = &c->slots[i];
		POISON(&c->slots[i], sizeof(c->slots[i]));
	}
	return c;
}

struct pb_rt_tensor *pb_rt_header_new(void)
{
	struct tensor_slot *s;

	if (!free_tensors && !more_tensors())
		return NULL;
	s = free_tensors;
	UNPOISON(s, sizeof(*s));
	free_tensors = s->next;
	return &s->tensor;
}

void pb_rt_header_free(struct pb_rt_tensor *t)
{
	struct tensor_slot *s = (struct tensor_slot *)t;

	s->next = free_tensors;
	free_tensors = s;
	POISON(s, sizeof(*s));
}

static bool more_storages(void)
{
	struct storage_chunk *c = system_new(sizeof(*c));

	if (!c)
		return false;
	c->next = storage_chunks;
	storage_chunks = c;
	for (int i = 0; i < PER_CHUNK; i++) {
		c->slots[i].refs = 0;
		c->slots[i].base = free_storages;
		free_storages = &c->slots[i];
	}
	return true;
}

struct pb_rt_storage *pb_rt_storage_header_new(void)
{
	struct pb_rt_storage *s;

	if (!free_storages && !more_storages())
		return NULL;
	s = free_storages;
	free_storages = s->base;
	return s;
}

void pb_rt_storage_header_free(struct pb_rt_storage *s)
{
	s->refs = 0;
	s->base = free_storages;
	free_storages = s;
}

void pb_rt_storage_each(void (*f)(struct pb_rt_storage *s, void *arg), void *arg)
{
	for (struct storage_chunk *c = storage_chunks; c; c = c->next)
		for (int i = 0; i < PER_CHUNK; i++)
			if (c->slots[i].refs)
				f(&c->slots[i], arg);
}
