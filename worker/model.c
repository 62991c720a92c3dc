/* SPDX-License-Identifier: Apache-2.0 */
/* Loading a model into this process and driving its container. See model.h. */
#include "worker/model.h"

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/checked.h"

#define DRY_RUN_MAX_BYTES (256ull << 20)
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

void *pb_model_sym(const struct pb_model *m, const char *name)
{
	return dlsym(m->lib, name);
}

/* Copy @src as one line, leaving out directories: "/build/x/y.h, line 3" becomes "y.h, line 3". */
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
		dst[n++] = *src == '\n' ? ' ' : *src;
		src++;
	}
	dst[n] = '\0';
}

/* Generated code says where a call failed; why is known to the library that failed. Its text may be of an earlier failure. */
static bool is_call_failure(const char *text)
{
	return strstr(text, "API call failed") != NULL;
}

void pb_model_error_text(struct pb_model *m, char *dst, size_t cap)
{
	const char *own = NULL, *text = NULL;

	if (!m->last_error || m->last_error(&own) != 0 || !own)
		own = "";
	if ((!*own || is_call_failure(own)) && m->backend->last_error)
		text = m->backend->last_error();
	if (!text || !*text)
		text = own;
	scrub_paths(dst, cap, *text ? text : "the model failed and gave no reason");
}

pb_status pb_model_failed(struct pb_model *m, const char *what, struct pt2box_error *err)
{
	char text[400];

	pb_model_error_text(m, text, sizeof(text));
	return pb_error_set(err, PT2BOX_MODEL_ERROR, "%s: %s", what, text);
}

static bool query_count(struct pb_model *m, const char *name, size_t *ret)
{
	int32_t (*f)(void *, size_t *) = (int32_t(*)(void *, size_t *))pb_model_sym(m, name);

	return f && f(m->container, ret) == 0;
}

static pb_status create(struct pb_model *m, struct pt2box_error *err)
{
	int32_t (*make)(void **, size_t, const char *, const char *) =
		(int32_t(*)(void **, size_t, const char *, const char *))pb_model_sym(
			m, "AOTInductorModelContainerCreateWithDevice");

	m->run = (pb_aoti_run)pb_model_sym(m, "AOTInductorModelContainerRunSingleThreaded");
	if (!m->run)
		m->run = (pb_aoti_run)pb_model_sym(m, "AOTInductorModelContainerRun");
	m->last_error = (int32_t(*)(const char **))pb_model_sym(m, "AOTInductorGetLastError");
	if (!make || !m->run)
		return pb_error_set(err, PT2BOX_PKG_REJECTED, "not an AOTInductor model: its entry points are missing");
	if (make(&m->container, 1, "cpu", NULL) != 0 || !m->container)
		return pb_model_failed(m, "the container cannot be made", err);
	if (!query_count(m, "AOTInductorModelContainerGetNumInputs", &m->n_inputs) ||
	    !query_count(m, "AOTInductorModelContainerGetNumOutputs", &m->n_outputs) ||
	    !query_count(m, "AOTInductorModelContainerGetNumConstants", &m->n_constants) || m->n_inputs > 65536 ||
	    m->n_outputs > 65536 || m->n_constants > 65536)
		return pb_error_set(err, PT2BOX_MODEL_ERROR, "the container does not tell its inputs and outputs");
	return pb_constants_init(m, err);
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

struct job {
	struct pb_model *m;
	struct pb_constants_change *change;
	struct pt2box_error *err;
	pb_status st;
};

static void *create_thread(void *arg)
{
	struct job *j = arg;

	pb_backend_enter_thread(j->m->backend);
	j->st = create(j->m, j->err);
	return NULL;
}

static void *change_thread(void *arg)
{
	struct job *j = arg;

	pb_backend_enter_thread(j->m->backend);
	j->st = pb_constants_apply(j->m, j->change, true, j->err);
	return NULL;
}

static pb_status do_job(void *(*f)(void *), struct pb_model *m, struct pb_constants_change *ch, const char *what,
			struct pt2box_error *err)
{
	/* Stays so if the model ends the thread in the middle. */
	struct job j = {m, ch, err, PT2BOX_MODEL_EXITED};

	pb_error_set(err, PT2BOX_MODEL_EXITED, "the model ended the thread that %s", what);
	if (!on_thread(f, &j))
		return pb_error_set(err, PT2BOX_MODEL_OOM, "there is no thread that %s", what);
	return j.st;
}

pb_status pb_model_create(struct pb_model *m, struct pt2box_error *err)
{
	return do_job(create_thread, m, NULL, "makes its container", err);
}

pb_status pb_model_change(struct pb_model *m, struct pb_constants_change *take, struct pt2box_error *err)
{
	const uint8_t *packed = m->constants.promised;
	pb_status st = do_job(change_thread, m, take, "changes its constants", err);

	if (m->constants.promised != packed)
		pb_model_dry_run(m);
	return st;
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

	pb_backend_enter_thread(m->backend);
	if (in && h && out && dry_inputs(m, in, h)) {
		if (m->backend->run_begin)
			m->backend->run_begin(NULL, 0);
		if (m->run(m->container, h, m->n_inputs, out, m->n_outputs, NULL, m->proxy) == 0) {
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
	if (m->constants.stateful || !mf->has_signature || mf->n_inputs != m->n_inputs)
		return;
	(void)on_thread(dry_run_thread, m);
}
