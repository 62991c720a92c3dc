/* SPDX-License-Identifier: Apache-2.0 */
/* Loading a model into this process and driving its container. See model.h. */
#include "worker/model.h"

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "ipc/checked.h"
#include "ipc/fdmap.h"

#define DRY_RUN_MAX_BYTES (256ull << 20)
#define PAGE 4096ull
#define DEVICE_CPU 0
#define LAYOUT_STRIDED 0

pb_status pb_model_dlopen(struct pb_model *m, struct pb_backend *b, const struct pb_manifest *manifest,
			  struct pt2box_error *err)
{
	memset(m, 0, sizeof(*m));
	m->backend = b;
	m->manifest = manifest;
	/* RTLD_LOCAL always: every model exports the same symbols, and the second would bind to the first's. */
	m->lib = dlopen("/model.so", RTLD_NOW | RTLD_LOCAL);
	if (!m->lib)
		return pb_error_set(err, PT2BOX_UNSUPPORTED, "the model cannot be linked: %s", dlerror());
	return PT2BOX_OK;
}

void pb_model_construct(struct pb_model *m)
{
	const struct pb_manifest *mf = m->manifest;
	struct link_map *map = NULL;
	static char name[] = "model";
	char *argv[] = {name, NULL};
	char *envp[] = {NULL};

	if (dlinfo(m->lib, RTLD_DI_LINKMAP, &map) != 0)
		return;
	if (mf->init_addr)
		((void (*)(int, char **, char **))(map->l_addr + mf->init_addr))(1, argv, envp);
	for (uint32_t i = 0; mf->init_array_addr && i < mf->init_array_count; i++) {
		void (**array)(int, char **, char **) = (void (**)(int, char **, char **))(map->l_addr +
											   mf->init_array_addr);

		if (array[i])
			array[i](1, argv, envp);
	}
}

static void *sym(const struct pb_model *m, const char *name)
{
	return dlsym(m->lib, name);
}

/* Copy @src leaving out directories: "/build/x/y.h, line 3" becomes "y.h, line 3". */
static void scrub_paths(char *dst, size_t cap, const char *src)
{
	size_t n = 0;

	while (*src && n + 1 < cap) {
		bool begins = n == 0 || strchr(" '\"(=", dst[n - 1]);

		if (begins && *src == '/') {
			const char *end = src + strcspn(src, " ,:;'\")\n");
			const char *base = src;

			for (const char *p = src; p < end; p++)
				if (*p == '/')
					base = p + 1;
			src = base;
			if (base == end)
				continue;
		}
		dst[n++] = *src++;
	}
	dst[n] = '\0';
}

void pb_model_error_text(struct pb_model *m, char *dst, size_t cap)
{
	const char *text = m->backend->last_error ? m->backend->last_error() : NULL;

	if ((!text || !*text) && m->last_error && m->last_error(&text) != 0)
		text = NULL;
	scrub_paths(dst, cap, text && *text ? text : "the model failed and gave no reason");
}

static pb_status model_failed(struct pb_model *m, const char *what, struct pt2box_error *err)
{
	char text[400];

	pb_model_error_text(m, text, sizeof(text));
	return pb_error_set(err, PT2BOX_MODEL_ERROR, "%s: %s", what, text);
}

/* The region that the container copied its constants to at creation, so that it can be given back. */
struct region {
	uint64_t begin, end;
};

static struct region find_copied_blob(struct pb_model *m)
{
	int32_t (*entries)(void *, const struct pb_aoti_constant **, size_t *, bool) =
		(int32_t(*)(void *, const struct pb_aoti_constant **, size_t *, bool))sym(
			m, "AOTInductorModelContainerExtractConstantsMapEntries");
	const struct pb_aoti_constant *list;
	struct region r = {UINT64_MAX, 0};
	size_t n;

	if (!entries || entries(m->container, &list, &n, false) != 0)
		return (struct region){0, 0};
	for (size_t i = 0; i < n; i++) {
		const struct pb_constant *c = NULL;
		void *p;

		for (uint32_t k = 0; k < m->manifest->n_constants && !c; k++)
			if (strcmp(m->manifest->constants[k].fqn, list[i].name) == 0)
				c = &m->manifest->constants[k];
		if (!c || c->folded || m->backend->get_data_ptr(list[i].handle, &p) != 0 || !p)
			continue;
		p = (char *)p - (uint64_t)c->storage_offset * pt2box_dtype_size(c->dtype);
		if ((uint64_t)p < r.begin)
			r.begin = (uint64_t)p;
		if ((uint64_t)p + c->data_size > r.end)
			r.end = (uint64_t)p + c->data_size;
	}
	return r;
}

/* The copy is not read any more: drop its pages. The allocation itself stays the container's. */
static void release_copied_blob(const struct region *r)
{
	uint64_t begin = (r->begin + PAGE - 1) & ~(PAGE - 1), end = r->end & ~(PAGE - 1);

	if (r->end > r->begin && end > begin && end - begin >= 1u << 20)
		madvise((void *)begin, end - begin, MADV_DONTNEED);
}

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
 * Give the container its constants where they lie, as user-managed pairs. false: this package cannot take them so (older
 * torch, or a description that does not fit), and keeps the copy that it made.
 */
static bool set_user_managed(struct pb_model *m, uint8_t *base, uint64_t bytes)
{
	int32_t (*update)(void *, const struct pb_aoti_constant *, size_t, bool, bool) =
		(int32_t(*)(void *, const struct pb_aoti_constant *, size_t, bool, bool))sym(
			m, "AOTInductorModelContainerUpdateUserManagedConstantBufferPairs");
	const struct pb_manifest *mf = m->manifest;
	struct pb_aoti_constant *pairs;
	size_t n = 0;
	bool ok;

	if (!update || mf->n_constants != m->n_constants)
		return false;
	pairs = calloc(mf->n_constants ? mf->n_constants : 1, sizeof(*pairs));
	ok = pairs != NULL;
	for (uint32_t i = 0; ok && i < mf->n_constants; i++) {
		if (mf->constants[i].folded)
			continue;
		pairs[n].name = mf->constants[i].name;
		ok = constant_handle(m, &mf->constants[i], base, bytes, &pairs[n].handle);
		n += ok;
	}
	ok = ok && update(m->container, pairs, n, false, true) == 0;
	for (size_t i = 0; i < n; i++)
		m->backend->delete_tensor(pairs[i].handle);
	free(pairs);
	return ok;
}

/* Where the constants of this package lie in memory; NULL if the container's own copy is the place. */
static uint8_t *constants_base(struct pb_model *m, void *consts, uint64_t consts_bytes, uint64_t *ret_bytes)
{
	const struct pb_manifest *mf = m->manifest;
	void *p;

	*ret_bytes = mf->const_bytes;
	switch (mf->const_source) {
	case PB_CONSTS_EMBEDDED_RO:
		return sym(m, "_binary_constants_bin_start");
	case PB_CONSTS_MMAP_SELF:
		/* [pad to 16 KiB][weights][magic] ends the file. */
		if (mf->const_bytes + 8 > mf->so_bytes || (mf->so_bytes - mf->const_bytes - 8) % PAGE)
			return NULL;
		p = mmap(NULL, mf->const_bytes, PROT_READ, MAP_SHARED, PB_FD_MODEL,
			 (off_t)(mf->so_bytes - mf->const_bytes - 8));
		return p == MAP_FAILED ? NULL : p;
	case PB_CONSTS_BLOB:
	case PB_CONSTS_EXTERNAL:
	case PB_CONSTS_WEIGHTS_FILE:
		*ret_bytes = consts_bytes;
		return consts;
	case PB_CONSTS_EMBEDDED_RW:
	case PB_CONSTS_NONE:
		break;
	}
	return NULL;
}

static pb_status set_constants(struct pb_model *m, void *consts, uint64_t consts_bytes, struct pt2box_error *err)
{
	bool in_container = m->manifest->const_source == PB_CONSTS_EMBEDDED_RO ||
			    m->manifest->const_source == PB_CONSTS_MMAP_SELF ||
			    m->manifest->const_source == PB_CONSTS_EMBEDDED_RW;
	struct region copied = {0, 0};
	uint64_t bytes;
	uint8_t *base;

	if (m->n_constants == 0 || m->manifest->const_source == PB_CONSTS_NONE)
		return PT2BOX_OK;
	base = constants_base(m, consts, consts_bytes, &bytes);
	if (!base && in_container)
		return PT2BOX_OK;
	if (!base)
		return pb_error_set(err, PT2BOX_NOT_FOUND,
				    "the package has no constants inside: give them with --constants FILE.safetensors");
	if (in_container)
		copied = find_copied_blob(m);
	if (set_user_managed(m, base, bytes)) {
		if (m->backend->add_constants && m->backend->add_constants(base, bytes))
			return model_failed(m, "constants", err);
		release_copied_blob(&copied);
		return PT2BOX_OK;
	}
	if (in_container) {
		/* The container's copy never changes either, once it is made. */
		if (copied.end > copied.begin && m->backend->add_constants &&
		    m->manifest->const_source != PB_CONSTS_EMBEDDED_RW)
			(void)m->backend->add_constants((void *)copied.begin, copied.end - copied.begin);
		return PT2BOX_OK;
	}
	return model_failed(m, "the container did not take the constants", err);
}

static pb_status fold_constants(struct pb_model *m, struct pt2box_error *err)
{
	int32_t (*fold)(void *, bool, void *, void *) = (int32_t(*)(void *, bool, void *, void *))sym(
		m, "AOTInductorModelContainerRunConstantFolding");
	bool any = false;

	for (uint32_t i = 0; i < m->manifest->n_constants; i++)
		any |= m->manifest->constants[i].folded;
	if (any && fold && fold(m->container, false, NULL, NULL) != 0)
		return model_failed(m, "constant folding", err);
	return PT2BOX_OK;
}

static bool query_count(struct pb_model *m, const char *name, size_t *ret)
{
	int32_t (*f)(void *, size_t *) = (int32_t(*)(void *, size_t *))sym(m, name);

	return f && f(m->container, ret) == 0;
}

struct create_args {
	struct pb_model *m;
	void *consts;
	uint64_t consts_bytes;
	struct pt2box_error *err;
	pb_status st;
};

static pb_status create(struct pb_model *m, void *consts, uint64_t consts_bytes, struct pt2box_error *err)
{
	int32_t (*make)(void **, size_t, const char *, const char *) =
		(int32_t(*)(void **, size_t, const char *, const char *))sym(
			m, "AOTInductorModelContainerCreateWithDevice");
	pb_status st;

	m->run = (pb_aoti_run)sym(m, "AOTInductorModelContainerRunSingleThreaded");
	if (!m->run)
		m->run = (pb_aoti_run)sym(m, "AOTInductorModelContainerRun");
	m->last_error = (int32_t(*)(const char **))sym(m, "AOTInductorGetLastError");
	if (!make || !m->run)
		return pb_error_set(err, PT2BOX_PKG_REJECTED, "not an AOTInductor model: its entry points are missing");
	if (make(&m->container, 1, "cpu", NULL) != 0 || !m->container)
		return model_failed(m, "the container cannot be made", err);
	if (!query_count(m, "AOTInductorModelContainerGetNumInputs", &m->n_inputs) ||
	    !query_count(m, "AOTInductorModelContainerGetNumOutputs", &m->n_outputs) ||
	    !query_count(m, "AOTInductorModelContainerGetNumConstants", &m->n_constants) || m->n_inputs > 65536 ||
	    m->n_outputs > 65536 || m->n_constants > 65536)
		return pb_error_set(err, PT2BOX_MODEL_ERROR, "the container does not tell its inputs and outputs");
	st = set_constants(m, consts, consts_bytes, err);
	if (st)
		return st;
	return fold_constants(m, err);
}

static void *create_thread(void *arg)
{
	struct create_args *a = arg;

	a->st = create(a->m, a->consts, a->consts_bytes, a->err);
	return NULL;
}

/* Model code may hold OpenMP regions: run it on a thread that ends, or workers forked later hang in theirs. */
static bool on_thread(void *(*f)(void *), void *arg)
{
	pthread_attr_t attr;
	pthread_t t;
	bool ok;

	if (pthread_attr_init(&attr) != 0)
		return false;
	pthread_attr_setstacksize(&attr, 8u << 20);
	ok = pthread_create(&t, &attr, f, arg) == 0;
	pthread_attr_destroy(&attr);
	if (ok)
		pthread_join(t, NULL);
	return ok;
}

pb_status pb_model_create(struct pb_model *m, void *consts, uint64_t consts_bytes, struct pt2box_error *err)
{
	/* Stays so if the model ends the thread in the middle. */
	struct create_args a = {m, consts, consts_bytes, err, PT2BOX_MODEL_EXITED};

	pb_error_set(err, PT2BOX_MODEL_EXITED, "the model ended the thread that makes its container");
	if (!on_thread(create_thread, &a))
		return pb_error_set(err, PT2BOX_MODEL_OOM, "no thread to make the container on");
	return a.st;
}

/* ---- dry run ---- */

struct dry_input {
	void *data;
	int64_t sizes[PT2BOX_MAX_DIMS], strides[PT2BOX_MAX_DIMS];
	uint64_t bytes;
};

static bool dry_shape(const struct pb_sig_input *s, struct dry_input *d)
{
	int64_t stride = 1;

	if (s->ndim < 0 || s->ndim > PT2BOX_MAX_DIMS)
		return false;
	for (int32_t i = s->ndim - 1; i >= 0; i--) {
		d->sizes[i] = s->dims[i].lo;
		d->strides[i] = s->dims[i].stride >= 0 ? s->dims[i].stride : stride;
		if (__builtin_mul_overflow(stride, d->sizes[i] > 0 ? d->sizes[i] : 1, &stride))
			return false;
	}
	return pb_tensor_extent(s->ndim, d->sizes, d->strides, pt2box_dtype_size(s->dtype), &d->bytes);
}

/* Zeroed memory for every input at its smallest shape; false if that cannot be known. */
static bool dry_inputs(struct pb_model *m, struct dry_input *in, AtenTensorHandle *handles)
{
	uint64_t total = 0;

	for (size_t i = 0; i < m->n_inputs; i++) {
		const struct pb_sig_input *s = &m->manifest->inputs[i];

		if (pt2box_dtype_size(s->dtype) == 0 || !dry_shape(s, &in[i]))
			return false;
		total += in[i].bytes;
		if (total > DRY_RUN_MAX_BYTES)
			return false;
		in[i].data = aligned_alloc(64, (in[i].bytes + 127) & ~63ull);
		if (!in[i].data)
			return false;
		memset(in[i].data, 0, in[i].bytes);
		if (m->backend->create_from_blob(in[i].data, s->ndim, in[i].sizes, in[i].strides, 0, s->dtype,
						 DEVICE_CPU, -1, &handles[i], LAYOUT_STRIDED, NULL, 0) != 0)
			return false;
	}
	return true;
}

static void delete_distinct(struct pb_model *m, AtenTensorHandle *h, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		for (size_t k = i + 1; k < n; k++)
			if (h[k] == h[i])
				h[k] = NULL;
		if (h[i])
			m->backend->delete_tensor(h[i]);
	}
}

static void *dry_run_thread(void *arg)
{
	struct pb_model *m = arg;
	struct dry_input *in = calloc(m->n_inputs + 1, sizeof(*in));
	AtenTensorHandle *h = calloc(m->n_inputs + 1, sizeof(AtenTensorHandle));
	AtenTensorHandle *out = calloc(m->n_outputs + 1, sizeof(AtenTensorHandle));

	if (in && h && out && dry_inputs(m, in, h)) {
		if (m->backend->run_begin)
			m->backend->run_begin(NULL, 0);
		if (m->run(m->container, h, m->n_inputs, out, m->n_outputs, NULL, NULL) == 0) {
			if (m->backend->run_end)
				m->backend->run_end(out, m->n_outputs);
			delete_distinct(m, out, m->n_outputs);
		}
	}
	for (size_t i = 0; h && i < m->n_inputs; i++)
		if (h[i])
			m->backend->delete_tensor(h[i]);
	for (size_t i = 0; in && i < m->n_inputs; i++)
		free(in[i].data);
	free(in);
	free(h);
	free(out);
	return NULL;
}

void pb_model_dry_run(struct pb_model *m)
{
	const struct pb_manifest *mf = m->manifest;

	/* A stateful model would count it; without a signature there is nothing to make inputs from. */
	if (mf->const_source == PB_CONSTS_EMBEDDED_RW || !mf->has_signature || mf->n_inputs != m->n_inputs)
		return;
	(void)on_thread(dry_run_thread, m);
}
