/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See constants.h. What the container does by itself is in model_container.h of torch 2.13.0; where it must be handled
 * with care a comment says so.
 */
#include "worker/constants.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "ipc/checked.h"
#include "ipc/fdmap.h"
#include "worker/model.h"

#define PAGE 4096ull
#define RELEASE_MIN_BYTES (1ull << 20)
#define DEVICE_CPU 0
#define LAYOUT_STRIDED 0

#define SET "AOTInductorModelContainerUpdateUserManagedConstantBufferPairs"
#define SWAP "AOTInductorModelContainerSwapConstantBuffer"
#define FREE_INACTIVE "AOTInductorModelContainerFreeInactiveConstantBuffer"
#define FOLD "AOTInductorModelContainerRunConstantFolding"
#define ENTRIES "AOTInductorModelContainerExtractConstantsMapEntries"

static void find_calls(struct pb_model *m)
{
	struct pb_constants_calls *c = &m->constants.call;

	*(void **)&c->set = pb_model_sym(m, SET);
	*(void **)&c->swap = pb_model_sym(m, SWAP);
	*(void **)&c->free_inactive = pb_model_sym(m, FREE_INACTIVE);
	*(void **)&c->fold = pb_model_sym(m, FOLD);
	*(void **)&c->entries = pb_model_sym(m, ENTRIES);
}

static pb_status no_call(const char *name, struct pt2box_error *err)
{
	return pb_error_set(err, PT2BOX_UNSUPPORTED, "the package was made by an older torch: it has no %s", name);
}

static unsigned index_of(const struct pb_constants *c, bool inactive)
{
	return inactive ? 1 - c->active : c->active;
}

static bool lives_in_code(const struct pb_manifest *mf)
{
	return mf->const_source == PB_CONSTS_EMBEDDED_RO || mf->const_source == PB_CONSTS_EMBEDDED_RW ||
	       mf->const_source == PB_CONSTS_MMAP_SELF;
}

/* ---- mappings ---- */

/* A stateful package writes: into pages of its own, that forks copy when they do. */
static uint8_t *map_constants(bool stateful, int fd, uint64_t offset, uint64_t bytes)
{
	void *p = mmap(NULL, bytes, stateful ? PROT_READ | PROT_WRITE : PROT_READ, stateful ? MAP_PRIVATE : MAP_SHARED,
		       fd, (off_t)offset);

	return p == MAP_FAILED ? NULL : p;
}

static void unmap(struct pb_constants_buffer *b)
{
	if (b->map)
		munmap(b->map, b->map_bytes);
	b->map = NULL;
	b->base = NULL;
}

pb_status pb_constants_prepare(struct pb_model *m, int given, uint64_t given_bytes, struct pt2box_error *err)
{
	const struct pb_manifest *mf = m->manifest;
	struct pb_constants_buffer *b = &m->constants.buffer[0];
	uint64_t offset = 0;
	int fd = given;

	m->constants.stateful = mf->mutates || mf->const_source == PB_CONSTS_EMBEDDED_RW;
	m->constants.given = given_bytes > 0;
	b->map_bytes = given_bytes;
	if (given_bytes == 0) {
		if (mf->const_source != PB_CONSTS_MMAP_SELF || !mf->const_bytes ||
		    !pb_span_fits(mf->const_file_offset, mf->const_bytes, mf->so_bytes) || mf->const_file_offset % PAGE)
			return PT2BOX_OK;
		b->map_bytes = mf->const_bytes;
		offset = mf->const_file_offset;
		fd = PB_FD_MODEL;
	}
	b->base = b->map = map_constants(m->constants.stateful, fd, offset, b->map_bytes);
	return b->base ? PT2BOX_OK : pb_error_sys(err, "cannot map the constants");
}

/* ---- the container's own view ---- */

/* Constants that the container has, in its order, which is the manifest's: folded and missing ones are left out. */
struct entries {
	const struct pb_aoti_constant *list;
	size_t n, next;
	bool complete; /* position says which it is; names of packages may be odd */
};

static bool get_entries(struct pb_model *m, bool inactive, struct entries *ret)
{
	size_t n = 0;

	*ret = (struct entries){.list = NULL};
	if (!m->constants.call.entries || m->constants.call.entries(m->container, &ret->list, &ret->n, inactive) != 0)
		return false;
	for (uint32_t i = 0; i < m->manifest->n_constants; i++)
		n += !m->manifest->constants[i].folded;
	ret->complete = n == ret->n;
	return true;
}

static AtenTensorHandle next_entry(struct entries *e, const struct pb_constant *c)
{
	if (c->folded || e->next == e->n || (!e->complete && strcmp(e->list[e->next].name, c->fqn) != 0))
		return NULL;
	return e->list[e->next++].handle;
}

/* Where the storage under a handle begins; NULL if it has none. */
static uint8_t *storage_of(struct pb_model *m, AtenTensorHandle h, const struct pb_constant *c)
{
	void *p;

	if (!h || m->backend->get_data_ptr(h, &p) != 0 || !p)
		return NULL;
	return (uint8_t *)p - (uint64_t)c->storage_offset * pt2box_dtype_size(c->dtype);
}

/* The blob that the container copied its constants to when it was made. It has the manifest's layout: NULL if not. */
static uint8_t *find_copy(struct pb_model *m, uint64_t *ret_bytes)
{
	uint8_t *base = NULL;
	struct entries e;

	*ret_bytes = 0;
	if (!get_entries(m, false, &e))
		return NULL;
	for (uint32_t i = 0; i < m->manifest->n_constants; i++) {
		const struct pb_constant *c = &m->manifest->constants[i];
		uint8_t *p = storage_of(m, next_entry(&e, c), c);

		if (c->folded || c->opaque || c->data_size == 0)
			continue;
		if (!p || (base && p - c->blob_offset != base))
			return NULL;
		base = p - c->blob_offset;
		*ret_bytes = c->blob_offset + c->data_size;
	}
	return base;
}

/* The copy is not read any more: drop its pages. The allocation itself stays the container's. */
static void release_copy(const uint8_t *base, uint64_t bytes)
{
	uint64_t begin = ((uint64_t)base + PAGE - 1) & ~(PAGE - 1), end = ((uint64_t)base + bytes) & ~(PAGE - 1);

	if (end > begin && end - begin >= RELEASE_MIN_BYTES)
		madvise((void *)begin, end - begin, MADV_DONTNEED);
}

/*
 * Constants in a layout of oneDNN's own are made by the container, with a description that only it has. The native runtime
 * has brought them into rows elsewhere; libtorch reads them where they are.
 */
static bool has_opaque(const struct pb_model *m)
{
	for (uint32_t i = 0; i < m->manifest->n_constants; i++)
		if (m->manifest->constants[i].opaque)
			return true;
	return false;
}

static void release_opaque(struct pb_model *m, const uint8_t *copy)
{
	struct entries e;

	if (!copy || !get_entries(m, false, &e))
		return;
	for (uint32_t i = 0; i < m->manifest->n_constants; i++) {
		const struct pb_constant *c = &m->manifest->constants[i];
		const uint8_t *p = storage_of(m, next_entry(&e, c), c);

		if (c->opaque && p && p != copy + c->blob_offset)
			release_copy(copy + c->blob_offset, c->data_size);
	}
}

/* ---- user-managed pairs ---- */

/* A handle over one constant in place; false if the manifest's words about it do not fit the memory. */
static bool constant_handle(struct pb_model *m, const struct pb_constant *c, uint8_t *base, uint64_t bytes,
			    AtenTensorHandle *ret)
{
	uint64_t elem = pt2box_dtype_size(c->dtype), extent, skip;

	if (!pb_span_fits(c->blob_offset, c->data_size, bytes) || c->storage_offset < 0 || !elem ||
	    !pb_tensor_extent(c->ndim, c->sizes, c->strides, elem, &extent) ||
	    !pb_mul_u64((uint64_t)c->storage_offset, elem, &skip) || !pb_span_fits(skip, extent, c->data_size))
		return false;
	return m->backend->create_from_blob(base + c->blob_offset, c->ndim, c->sizes, c->strides, c->storage_offset,
					    c->dtype, DEVICE_CPU, -1, ret, LAYOUT_STRIDED, NULL, 0) == 0;
}

/*
 * The container made a handle of its own from each pair, and loses it when the next pair of that name comes: keep them,
 * to free them then. Those of the last time are out of its reach now.
 */
static void keep_handles(struct pb_model *m, unsigned which)
{
	struct pb_constants_buffer *b = &m->constants.buffer[which];
	struct entries e;

	for (size_t i = 0; i < b->n_pairs; i++)
		m->backend->delete_tensor(b->pairs[i]);
	free(b->pairs);
	b->pairs = NULL;
	b->n_pairs = 0;
	if (!get_entries(m, which != m->constants.active, &e) || !e.complete || !e.n)
		return;
	b->pairs = calloc(e.n, sizeof(*b->pairs));
	for (size_t i = 0; b->pairs && i < e.n; i++)
		b->pairs[b->n_pairs++] = e.list[i].handle;
}

/* Give the container all constants of a buffer where they lie. false: it did not take them. */
static bool set_pairs(struct pb_model *m, unsigned which, uint8_t *base, uint64_t bytes)
{
	const struct pb_manifest *mf = m->manifest;
	struct pb_aoti_constant *pairs;
	size_t n = 0;
	bool ok;

	if (!m->constants.call.set || mf->n_constants != m->n_constants)
		return false;
	pairs = calloc(mf->n_constants + 1, sizeof(*pairs));
	ok = pairs != NULL;
	for (uint32_t i = 0; ok && i < mf->n_constants; i++) {
		if (mf->constants[i].folded)
			continue;
		pairs[n].name = mf->constants[i].name;
		ok = constant_handle(m, &mf->constants[i], base, bytes, &pairs[n].handle);
		n += ok;
	}
	ok = ok && m->constants.call.set(m->container, pairs, n, which != m->constants.active, true) == 0;
	for (size_t i = 0; i < n; i++)
		m->backend->delete_tensor(pairs[i].handle);
	free(pairs);
	if (ok)
		keep_handles(m, which);
	return ok;
}

/* ---- folding, packing ---- */

static pb_status swap(struct pb_model *m, struct pt2box_error *err)
{
	if (m->constants.call.swap(m->container) != 0)
		return pb_model_failed(m, "the buffers cannot be swapped", err);
	m->constants.active = 1 - m->constants.active;
	return PT2BOX_OK;
}

/*
 * Compute the folded constants of a buffer now, not in the first run. Folding the inactive one by the container's own flag
 * would also replace its tensor constants by those of the active buffer: make it the active one for the moment.
 */
static pb_status fold(struct pb_model *m, unsigned which, struct pt2box_error *err)
{
	bool inactive = which != m->constants.active;
	pb_status st;

	if (!m->constants.folds || !m->constants.call.fold)
		return PT2BOX_OK;
	st = inactive ? swap(m, err) : PT2BOX_OK;
	if (st)
		return st;
	if (m->constants.call.fold(m->container, false, NULL, m->proxy) != 0)
		st = pb_model_failed(m, "constant folding", err);
	if (inactive) {
		pb_status back = swap(m, st ? NULL : err);

		st = st ? st : back;
	}
	return st;
}

/* What the runtime may keep packed copies of; NULL: of nothing. Copies of what was there before are freed. */
static void promise(struct pb_model *m, uint8_t *base)
{
	struct pb_constants *c = &m->constants;

	if (c->promised == base || c->stateful || !m->backend->add_constants || !m->backend->remove_constants)
		return;
	if (c->promised)
		m->backend->remove_constants(c->promised, m->manifest->const_bytes);
	c->promised = base && m->backend->add_constants(base, m->manifest->const_bytes) == 0 ? base : NULL;
}

/* ---- the first constants ---- */

static pb_status set_first(struct pb_model *m, struct pt2box_error *err)
{
	const struct pb_manifest *mf = m->manifest;
	struct pb_constants_buffer *b = &m->constants.buffer[0];
	uint64_t bytes = b->map ? b->map_bytes : mf->const_bytes, copy_bytes = 0;
	uint8_t *copy = lives_in_code(mf) ? find_copy(m, &copy_bytes) : NULL;

	if (!b->base && !m->constants.stateful && mf->const_source == PB_CONSTS_EMBEDDED_RO)
		b->base = pb_model_sym(m, "_binary_constants_bin_start");
	if (!b->base && !lives_in_code(mf))
		return pb_error_set(err, PT2BOX_NOT_FOUND,
				    "the package has no constants inside: give them with --constants FILE.safetensors");
	if (b->base && !has_opaque(m) && set_pairs(m, 0, b->base, bytes)) {
		promise(m, b->base);
		release_copy(copy, copy_bytes);
		return PT2BOX_OK;
	}
	if (!lives_in_code(mf) || m->constants.given)
		return m->constants.call.set ? pb_model_failed(m, "the container did not take the constants", err) :
					       no_call(SET, err);
	/* What the container copied for itself never changes either, if the package does not write. */
	unmap(b);
	b->base = copy;
	promise(m, copy);
	release_opaque(m, copy);
	return PT2BOX_OK;
}

pb_status pb_constants_init(struct pb_model *m, struct pt2box_error *err)
{
	struct pb_constants *c = &m->constants;
	pb_status st = PT2BOX_OK;

	find_calls(m);
	for (uint32_t i = 0; i < m->manifest->n_constants; i++)
		c->folds |= m->manifest->constants[i].folded;
	if (m->n_constants && m->manifest->const_source != PB_CONSTS_NONE)
		st = set_first(m, err);
	if (!st)
		st = fold(m, 0, err);
	c->buffer[0].present = !st;
	return st;
}

/* ---- changes ---- */

static uint64_t memory_bytes(const struct pb_model *m)
{
	return m->manifest->const_bytes + m->manifest->n_constants;
}

static pb_status check_update(const struct pb_model *m, bool inactive, struct pt2box_error *err)
{
	const struct pb_constants *c = &m->constants;

	if (has_opaque(m))
		return pb_error_set(err, PT2BOX_UNSUPPORTED,
				    "the package was compiled with freezing: its constants cannot be changed");
	if (m->manifest->n_constants != m->n_constants)
		return pb_error_set(err, PT2BOX_UNSUPPORTED,
				    "what the package says of its constants does not fit its code");
	if ((!c->stateful || inactive) && !c->call.set)
		return no_call(SET, err);
	/* Where the present ones are is needed to write to them, or to go back to them. */
	if (m->n_constants && !c->buffer[c->active].base)
		return no_call(ENTRIES, err);
	return PT2BOX_OK;
}

static pb_status check_change(const struct pb_model *m, enum pb_change kind, bool inactive, struct pt2box_error *err)
{
	const struct pb_constants *c = &m->constants;
	bool folds = c->folds && (kind == PB_CHANGE_UPDATE || kind == PB_CHANGE_FOLD);

	if (kind == PB_CHANGE_FREE_INACTIVE && !c->call.free_inactive)
		return no_call(FREE_INACTIVE, err);
	if ((kind == PB_CHANGE_SWAP || (folds && inactive)) && !c->call.swap)
		return no_call(SWAP, err);
	if (folds && !c->call.fold)
		return no_call(FOLD, err);
	return kind == PB_CHANGE_UPDATE ? check_update(m, inactive, err) : PT2BOX_OK;
}

pb_status pb_constants_stage(const struct pb_model *m, uint32_t seq, enum pb_change kind, bool inactive, int fd,
			     struct pb_constants_change *ret, struct pt2box_error *err)
{
	struct pb_constants_change ch = {.seq = seq, .kind = kind, .inactive = inactive};
	pb_status st = check_change(m, kind, inactive, err);

	if (st)
		return st;
	if (kind == PB_CHANGE_UPDATE && memory_bytes(m)) {
		if (fd < 0)
			return pb_error_set(err, PT2BOX_PROTOCOL, "an update of constants without memory");
		ch.map_bytes = memory_bytes(m);
		ch.map = map_constants(m->constants.stateful, fd, 0, ch.map_bytes);
		if (!ch.map)
			return pb_error_sys(err, "cannot map the constants");
	}
	*ret = ch;
	return PT2BOX_OK;
}

void pb_constants_unstage(struct pb_constants_change *ch)
{
	if (ch->map)
		munmap(ch->map, ch->map_bytes);
	ch->map = NULL;
}

static bool is_given(const struct pb_model *m, const struct pb_constants_change *ch, uint32_t i)
{
	return ch->map[m->manifest->const_bytes + i];
}

static void exchange(uint8_t *a, uint8_t *b, uint64_t n)
{
	uint8_t part[4096];

	for (uint64_t at = 0, k; at < n; at += k) {
		k = n - at < sizeof(part) ? n - at : sizeof(part);
		memcpy(part, a + at, k);
		memcpy(a + at, b + at, k);
		memcpy(b + at, part, k);
	}
}

/* Into the present storage of a stateful package go the constants that were given; the others are its state. */
static void exchange_given(struct pb_model *m, const struct pb_constants_change *ch)
{
	uint8_t *base = m->constants.buffer[m->constants.active].base;

	for (uint32_t i = 0; i < m->manifest->n_constants; i++) {
		const struct pb_constant *c = &m->manifest->constants[i];

		if (!c->folded && is_given(m, ch, i))
			exchange(base + c->blob_offset, ch->map + c->blob_offset, c->data_size);
	}
}

static pb_status update_in_place(struct pb_model *m, const struct pb_constants_change *ch, struct pt2box_error *err)
{
	pb_status st;

	exchange_given(m, ch);
	st = fold(m, m->constants.active, err);
	if (st) {
		exchange_given(m, ch);
		(void)!fold(m, m->constants.active, NULL);
	}
	return st;
}

/*
 * What an inactive buffer gets of a stateful package's present state: buffers and tensor constants that were not given
 * (update_constant_buffer() takes them from the active one; user-managed it would let both buffers share them).
 */
static void copy_state(struct pb_model *m, const struct pb_constants_change *ch)
{
	const uint8_t *base = m->constants.buffer[m->constants.active].base;

	for (uint32_t i = 0; i < m->manifest->n_constants; i++) {
		const struct pb_constant *c = &m->manifest->constants[i];

		if ((c->type == PB_CONST_BUFFER || c->type == PB_CONST_TENSOR) && !c->folded && !is_given(m, ch, i))
			memcpy(ch->map + c->blob_offset, base + c->blob_offset, c->data_size);
	}
}

/* A buffer's constants are elsewhere from now on. On failure it has its old ones, computed anew. */
static pb_status update_pairs(struct pb_model *m, struct pb_constants_change *ch, bool pack, struct pt2box_error *err)
{
	unsigned which = index_of(&m->constants, ch->inactive);
	struct pb_constants_buffer *b = &m->constants.buffer[which];
	pb_status st;

	if (m->constants.stateful)
		copy_state(m, ch);
	if (set_pairs(m, which, ch->map, m->manifest->const_bytes))
		st = fold(m, which, err);
	else
		st = pb_model_failed(m, "the container did not take the constants", err);
	if (!st) {
		/* Packed copies are known by address: they end before the address does. */
		if (!ch->inactive)
			promise(m, pack ? ch->map : NULL);
		unmap(b);
		b->base = b->map = ch->map;
		b->map_bytes = ch->map_bytes;
		b->present = true;
		ch->map = NULL;
	} else if (b->present && set_pairs(m, which, b->base, m->manifest->const_bytes)) {
		(void)!fold(m, which, NULL);
	}
	return st;
}

static pb_status update(struct pb_model *m, struct pb_constants_change *ch, bool pack, struct pt2box_error *err)
{
	if (!ch->map) { /* a package without constants */
		m->constants.buffer[index_of(&m->constants, ch->inactive)].present = true;
		return PT2BOX_OK;
	}
	if (m->constants.stateful && !ch->inactive)
		return update_in_place(m, ch, err);
	return update_pairs(m, ch, pack, err);
}

/* User-managed constants stay in the container's map when their memory is gone: what is not present is never read. */
static pb_status free_inactive(struct pb_model *m, struct pt2box_error *err)
{
	struct pb_constants_buffer *b = &m->constants.buffer[1 - m->constants.active];

	if (!b->present)
		return PT2BOX_OK;
	if (m->constants.call.free_inactive(m->container) != 0)
		return pb_model_failed(m, "the inactive buffer cannot be freed", err);
	unmap(b);
	b->present = false;
	return PT2BOX_OK;
}

static pb_status make_change(struct pb_model *m, struct pb_constants_change *ch, bool pack, struct pt2box_error *err)
{
	struct pb_constants *c = &m->constants;
	pb_status st;

	if ((ch->kind == PB_CHANGE_SWAP || (ch->kind == PB_CHANGE_FOLD && ch->inactive)) &&
	    !c->buffer[1 - c->active].present)
		return pb_error_set(err, PT2BOX_USAGE, "the inactive buffer of constants is empty");
	switch (ch->kind) {
	case PB_CHANGE_UPDATE:
		return update(m, ch, pack, err);
	case PB_CHANGE_SWAP:
		st = swap(m, err);
		if (!st)
			promise(m, pack ? c->buffer[c->active].base : NULL);
		return st;
	case PB_CHANGE_FREE_INACTIVE:
		return free_inactive(m, err);
	case PB_CHANGE_FOLD:
		return fold(m, index_of(c, ch->inactive), err);
	}
	return pb_error_set(err, PT2BOX_PROTOCOL, "a change of constants of kind %d", (int)ch->kind);
}

pb_status pb_constants_apply(struct pb_model *m, struct pb_constants_change *take, bool pack, struct pt2box_error *err)
{
	pb_status st = make_change(m, take, pack, err);

	pb_constants_unstage(take);
	if (!st)
		m->constants.change_seq = take->seq;
	return st;
}

/* ---- extraction ---- */

static void copy_out(struct pb_model *m, const struct pb_constants_buffer *b, struct entries *e, uint8_t *dst)
{
	const struct pb_manifest *mf = m->manifest;

	for (uint32_t i = 0; i < mf->n_constants; i++) {
		const struct pb_constant *c = &mf->constants[i];
		const uint8_t *from = e ? storage_of(m, next_entry(e, c), c) : c->folded ? NULL : b->base + c->blob_offset;

		if (c->opaque || (!from && (c->folded || c->data_size)))
			continue;
		if (c->data_size)
			memcpy(dst + c->blob_offset, from, c->data_size);
		dst[mf->const_bytes + i] = 1;
	}
}

pb_status pb_constants_extract(struct pb_model *m, bool inactive, int fd, struct pt2box_error *err)
{
	const struct pb_constants_buffer *b = &m->constants.buffer[index_of(&m->constants, inactive)];
	uint64_t bytes = memory_bytes(m);
	struct entries e;
	bool have;
	void *dst;

	if (!b->present || !bytes)
		return PT2BOX_OK;
	have = get_entries(m, inactive, &e);
	if (!have && m->constants.call.entries)
		return pb_model_failed(m, "the constants cannot be read", err);
	/* A package of an older torch: where they lie is known all the same, unless the container copied them. */
	if (!have && !b->base)
		return no_call(ENTRIES, err);
	dst = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (dst == MAP_FAILED)
		return pb_error_sys(err, "cannot map memory for the constants");
	copy_out(m, b, have ? &e : NULL, dst);
	munmap(dst, bytes);
	return PT2BOX_OK;
}
