/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rt_host: runs a package's model in this process, without a sandbox, on the runtime or on
 *libtorch: for developing the runtime, and for tests. Never for a package that is not trusted.
 *
 *	rt_host [options] FIXTURE			every case of tests/fixtures/FIXTURE
 *	rt_host [options] PACKAGE IN.npz [OUT.npz]	prints the outputs, or compares them
 *
 *	--runtime LIB (build/libexec/libtorch_cpu.so)  --model NAME  -n CALLS (time them)  --threads
 *N  --no-window  --no-pack
 *	--rtol R  --atol A  --call-only (time the model's call alone, without making and ending
 *handles)
 */
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <link.h>
#include <math.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "runtime/aoti.h"
#include "runtime/convert.h"
#include "tests/tools/npy.inc"
#include "torch/backend.h"

#define MAX_TENSORS 64

struct pair {
	const char *name;
	AtenTensorHandle handle;
};

static const char *runtime_path = "build/libexec/libtorch_cpu.so", *model_name = "model";
static double rel_tol = 1e-4, abs_tol = 1e-5;
static bool tolerance_given, use_window = true, use_pack = true, call_only;
static int n_calls, n_threads = 1;

static struct pb_backend b;
static void *lib, *container;
static size_t n_in, n_out;
static int32_t (*run)(void *, AtenTensorHandle *, size_t, AtenTensorHandle *, size_t, void *,
		      void *);

static _Noreturn void die(const char *what)
{
	const char *more = b.last_error ? b.last_error() : NULL;

	fprintf(stderr, "rt_host: %s%s%s\n", what, more && *more ? ": " : "", more ? more : "");
	exit(2);
}

static void *symbol(const char *name)
{
	return dlsym(lib, name);
}

/* ---- the model ---- */

/* A copy of model.so in memory, without the request for an executable stack. */
static int model_memfd(const char *package)
{
	char part[256];
	uint64_t bytes;
	uint8_t *so;
	Elf64_Ehdr *eh;
	int fd = memfd_create("model.so", 0);

	snprintf(part, sizeof(part), "data/aotinductor/%s/", model_name);
	so = zip_slurp(package, part, ".so", &bytes);
	if (!so || fd < 0 || bytes < sizeof(*eh))
		die("the package has no such model");
	eh = (Elf64_Ehdr *)so;
	for (int i = 0; i < eh->e_phnum; i++) {
		Elf64_Phdr *ph = (Elf64_Phdr *)(so + eh->e_phoff) + i;

		if (ph->p_type == PT_GNU_STACK)
			ph->p_flags &= ~(Elf64_Word)PF_X;
	}
	for (uint64_t at = 0; at < bytes;) {
		ssize_t n = write(fd, so + at, bytes - at);

		if (n <= 0)
			die("cannot copy the model");
		at += (uint64_t)n;
	}
	free(so);
	return fd;
}

struct segment_query {
	uintptr_t at;
	bool writable;
};

static int look_at_segments(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct segment_query *q = arg;

	(void)size;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		const uintptr_t begin = info->dlpi_addr + ph->p_vaddr;

		if (ph->p_type == PT_LOAD && q->at >= begin && q->at < begin + ph->p_memsz)
			q->writable = ph->p_flags & PF_W;
	}
	return 0;
}

/* The section of the constants is writable if the model changes one of them. */
static bool mutates_constants(void)
{
	struct segment_query q = {.at = (uintptr_t)symbol("_binary_constants_bin_start")};

	if (q.at)
		dl_iterate_phdr(look_at_segments, &q);
	return q.writable;
}

/* What the worker does too, so that packed weights are kept. */
static void promise_constants(void)
{
	int32_t (*entries)(void *, const struct pair **, size_t *, bool) =
		(int32_t(*)(void *, const struct pair **, size_t *, bool))symbol(
			"AOTInductorModelContainerExtractConstantsMapEntries");
	int32_t (*storage_size)(AtenTensorHandle, int64_t *) =
		(int32_t(*)(AtenTensorHandle, int64_t *))dlsym(b.lib,
							       "aoti_torch_get_storage_size");
	const struct pair *list;
	size_t n;

	if (!use_pack || !b.add_constants || !entries || mutates_constants() ||
	    entries(container, &list, &n, false))
		return;
	for (size_t i = 0; i < n; i++) {
		int64_t bytes;
		void *p;

		if (list[i].handle && !b.get_data_ptr(list[i].handle, &p) &&
		    !storage_size(list[i].handle, &bytes) && p)
			b.add_constants(p, (uint64_t)bytes);
	}
}

static void feed_blob(const char *package)
{
	int32_t (*update)(void *, const uint8_t *) = (int32_t(*)(void *, const uint8_t *))symbol(
		"AOTInductorModelUpdateConstantsFromBlob");
	char part[256];
	uint64_t bytes;
	void *blob;

	snprintf(part, sizeof(part), "data/aotinductor/%s/", model_name);
	blob = zip_slurp(package, part, "_weights.blob", &bytes);
	if (blob && (!update || update(container, blob)))
		die("the constants were not taken");
	free(blob);
}

static int32_t safetensors_dtype(const char *s)
{
	return !strcmp(s, "F32")   ? PB_RT_F32
	       : !strcmp(s, "F64") ? PB_RT_F64
	       : !strcmp(s, "I64") ? PB_RT_I64
				   : -1;
}

static const char *internal_name(const char *fqn)
{
	int32_t (*count)(void *, size_t *) =
		(int32_t(*)(void *, size_t *))symbol("AOTInductorModelContainerGetNumConstants");
	int32_t (*get_name)(void *, size_t, const char **) = (int32_t(*)(
		void *, size_t, const char **))symbol("AOTInductorModelContainerGetConstantName");
	int32_t (*get_fqn)(void *, size_t, const char **) =
		(int32_t(*)(void *, size_t, const char **))symbol(
			"AOTInductorModelContainerGetConstantOriginalFQN");
	const char *have, *name;
	size_t n;

	if (count(container, &n))
		return NULL;
	for (size_t i = 0; i < n; i++)
		if (!get_fqn(container, i, &have) && strcmp(have, fqn) == 0 &&
		    !get_name(container, i, &name))
			return name;
	return NULL;
}

/* A package without constants, and a file of them beside it. */
static void feed_safetensors(const char *path)
{
	int32_t (*update)(void *, const struct pair *, size_t, bool, bool) =
		(int32_t(*)(void *, const struct pair *, size_t, bool, bool))symbol(
			"AOTInductorModelContainerUpdateUserManagedConstantBufferPairs");
	struct pair pairs[MAX_TENSORS];
	FILE *f = fopen(path, "r");
	uint64_t header_bytes;
	const char *fqn;
	uint8_t *data;
	json_t *json, *row;
	size_t n = 0;
	long size;

	if (!f)
		return;
	fseek(f, 0, SEEK_END);
	size = ftell(f);
	rewind(f);
	data = aligned_alloc(64, ((size_t)size + 127) & ~63ul);
	if (!data || fread(data, 1, (size_t)size, f) != (size_t)size)
		die("cannot read the constants");
	fclose(f);
	memcpy(&header_bytes, data, 8);
	json = json_loadb((char *)data + 8, header_bytes, 0, NULL);
	json_object_foreach(json, fqn, row)
	{
		json_t *shape = json_object_get(row, "shape"),
		       *at = json_object_get(row, "data_offsets");
		int64_t sizes[8], strides[8], step = 1;
		int nd = (int)json_array_size(shape);
		uint64_t begin, bytes;
		uint8_t *copy;

		if (!at || n == MAX_TENSORS || !(pairs[n].name = internal_name(fqn)))
			continue;
		for (int i = nd - 1; i >= 0; i--) {
			sizes[i] = json_integer_value(json_array_get(shape, (size_t)i));
			strides[i] = step;
			step *= sizes[i];
		}
		begin = (uint64_t)json_integer_value(json_array_get(at, 0));
		bytes = (uint64_t)json_integer_value(json_array_get(at, 1)) - begin;
		copy = aligned_alloc(64, (bytes + 127) & ~63ull); /* lives as long as the model */
		memcpy(copy, data + 8 + header_bytes + begin, bytes);
		if (b.create_from_blob(
			    copy, nd, sizes, strides, 0,
			    safetensors_dtype(json_string_value(json_object_get(row, "dtype"))), 0,
			    -1, &pairs[n].handle, 0, NULL, 0))
			die("a constant is not supported");
		n++;
	}
	json_decref(json);
	free(data);
	if (!update || update(container, pairs, n, false, true))
		die("the constants were not taken");
}

static void load_model(const char *package)
{
	int32_t (*make)(void **, size_t, const char *, const char *);
	int32_t (*count)(void *, size_t *);
	char path[64], beside[4096];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", model_memfd(package));
	lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!lib)
		die(dlerror());
	make = (int32_t(*)(void **, size_t, const char *, const char *))symbol(
		"AOTInductorModelContainerCreateWithDevice");
	run = (int32_t(*)(void *, AtenTensorHandle *, size_t, AtenTensorHandle *, size_t, void *,
			  void *))symbol("AOTInductorModelContainerRunSingleThreaded");
	if (!make || !run || make(&container, 1, "cpu", NULL))
		die("the container cannot be made");
	count = (int32_t(*)(void *, size_t *))symbol("AOTInductorModelContainerGetNumInputs");
	if (count(container, &n_in))
		die("no inputs");
	count = (int32_t(*)(void *, size_t *))symbol("AOTInductorModelContainerGetNumOutputs");
	if (count(container, &n_out) || n_in > MAX_TENSORS || n_out > MAX_TENSORS)
		die("too many tensors");
	feed_blob(package);
	snprintf(beside, sizeof(beside), "%.*s/constants.safetensors",
		 (int)(strrchr(package, '/') - package), package);
	feed_safetensors(beside);
	promise_constants();
}

/* ---- a case ---- */

static void make_inputs(const struct npy *in, AtenTensorHandle *h)
{
	for (size_t i = 0; i < n_in; i++)
		if (b.create_from_blob(in[i].data, in[i].ndim, in[i].sizes, in[i].strides, 0,
				       in[i].dtype, 0, -1, &h[i], 0, NULL, 0))
			die("an input cannot be made");
}

static void end_outputs(AtenTensorHandle *out)
{
	for (size_t i = 0; i < n_out; i++) {
		for (size_t k = i + 1; k < n_out; k++)
			if (out[k] == out[i])
				out[k] = NULL;
		if (out[i])
			b.delete_tensor(out[i]);
		out[i] = NULL;
	}
}

static double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static char *window;
static size_t window_bytes = 64 << 20;

static double one_call(const struct npy *in, AtenTensorHandle *out)
{
	AtenTensorHandle h[MAX_TENSORS] = {NULL};
	double begin = now_us(), called;

	make_inputs(in, h);
	if (b.run_begin)
		b.run_begin(use_window ? window : NULL, use_window ? window_bytes : 0);
	if (call_only)
		begin = now_us();
	if (run(container, h, n_in, out, n_out, NULL, NULL))
		die("the run failed");
	called = now_us();
	if (b.run_end)
		b.run_end(out, n_out);
	return (call_only ? called : now_us()) - begin;
}

static int by_value(const void *x, const void *y)
{
	return (*(const double *)x > *(const double *)y) -
	       (*(const double *)x < *(const double *)y);
}

static void time_calls(const struct npy *in)
{
	double *us = calloc((size_t)n_calls, sizeof(*us));
	AtenTensorHandle out[MAX_TENSORS] = {NULL};

	for (int i = 0; i < n_calls; i++) {
		const double begin = now_us();

		us[i] = one_call(in, out);
		end_outputs(out);
		if (!call_only)
			us[i] = now_us() - begin;
	}
	qsort(us, (size_t)n_calls, sizeof(*us), by_value);
	printf("p50 %.2f us, p90 %.2f us, p99 %.2f us, least %.2f us\n", us[n_calls / 2],
	       us[n_calls * 9 / 10], us[n_calls * 99 / 100], us[0]);
	free(us);
}

/* Element @i of the logical order, as double; complex numbers are not in the fixtures. */
static double value_at(const void *data, int32_t dtype, const int64_t *sizes,
		       const int64_t *strides, int64_t ndim, int64_t i)
{
	static const uint8_t size_of[] = {1, 1, 2, 4, 8, 2, 4, 8, 4, 8, 16, 1};
	const int64_t elem = dtype == PB_RT_BF16 || dtype == PB_RT_U16 ? 2 : size_of[dtype];
	int64_t at = 0;
	double v;

	for (int64_t d = ndim - 1; d >= 0; d--) {
		at += i % sizes[d] * strides[d];
		i /= sizes[d];
	}
	return pb_rt_convert(&v, PB_RT_F64, 1, (const char *)data + at * elem, dtype, 1, 1) ? NAN
											    : v;
}

static bool same(double got, double want)
{
	if (isnan(got) || isnan(want))
		return isnan(got) && isnan(want);
	return got == want || fabs(got - want) <= abs_tol + rel_tol * fabs(want);
}

static int compare(size_t i, AtenTensorHandle t, const struct npy *want, bool have)
{
	int64_t ndim, *sizes, *strides, n = 1, bad = 0;
	double worst = 0, g, w;
	int32_t dtype;
	void *data;

	if (!t || !have) {
		if (!t != !have)
			printf("  out%zu: %s\n", i, t ? "not expected" : "missing");
		return !t != !have;
	}
	b.get_dim(t, &ndim);
	b.get_sizes(t, &sizes);
	b.get_strides(t, &strides);
	b.get_dtype(t, &dtype);
	b.get_data_ptr(t, &data);
	if (ndim != want->ndim || memcmp(sizes, want->sizes, (size_t)ndim * 8) != 0 ||
	    (dtype != want->dtype && !(dtype == PB_RT_BF16 && want->dtype == PB_RT_U16))) {
		printf("  out%zu: another shape or dtype (%d, want %d)\n", i, dtype, want->dtype);
		return 1;
	}
	for (int64_t d = 0; d < ndim; d++)
		n *= sizes[d];
	for (int64_t k = 0; k < n; k++) {
		g = value_at(data, dtype, sizes, strides, ndim, k);
		w = value_at(want->data, dtype, want->sizes, want->strides, ndim, k);
		if (!same(g, w) && bad++ == 0)
			printf("  out%zu[%lld]: got %.9g, want %.9g\n", i, (long long)k, g, w);
		if (fabs(g - w) > worst)
			worst = fabs(g - w);
	}
	if (bad)
		printf("  out%zu: %lld of %lld differ, worst %g\n", i, (long long)bad, (long long)n,
		       worst);
	return bad != 0;
}

static void print(size_t i, AtenTensorHandle t)
{
	int64_t ndim, *sizes, *strides, n = 1;
	int32_t dtype;
	void *data;

	if (!t) {
		printf("out%zu: none\n", i);
		return;
	}
	b.get_dim(t, &ndim);
	b.get_sizes(t, &sizes);
	b.get_strides(t, &strides);
	b.get_dtype(t, &dtype);
	b.get_data_ptr(t, &data);
	printf("out%zu: dtype %d [", i, dtype);
	for (int64_t d = 0; d < ndim; d++) {
		printf("%s%lld", d ? ", " : "", (long long)sizes[d]);
		n *= sizes[d];
	}
	printf("]");
	for (int64_t k = 0; k < n && k < 8; k++)
		printf(" %.7g", value_at(data, dtype, sizes, strides, ndim, k));
	printf("\n");
}

/* 0 if it fits. The second call runs with outputs placed by what the first one taught. */
static int run_case(const char *in_path, const char *out_path, const json_t *dtypes, int repeats)
{
	struct npy in[MAX_TENSORS], fresh, want;
	AtenTensorHandle out[MAX_TENSORS] = {NULL};
	char name[32];
	int rc = 0;

	for (size_t i = 0; i < n_in; i++) {
		const char *dtype = json_string_value(json_array_get(dtypes, i));

		snprintf(name, sizeof(name), "in%zu", i);
		if (!npy_read(in_path, name, &in[i]))
			die("an input is missing");
		if (dtype && strcmp(dtype, "bfloat16") == 0)
			in[i].dtype = PB_RT_BF16;
	}
	for (int r = 0; r < repeats; r++) {
		for (size_t i = 0; i < n_in; i++) { /* the model may have written it */
			snprintf(name, sizeof(name), "in%zu", i);
			if (npy_read(in_path, name, &fresh))
				memcpy(in[i].data, fresh.data, fresh.bytes);
			npy_deinit(&fresh);
		}
		one_call(in, out);
		for (size_t i = 0; i < n_out; i++) {
			bool have;

			if (!out_path) {
				print(i, out[i]);
				continue;
			}
			snprintf(name, sizeof(name), "out%zu", i);
			have = npy_read(out_path, name, &want);
			rc |= compare(i, out[i], &want, have);
			npy_deinit(&want);
		}
		end_outputs(out);
	}
	if (n_calls)
		time_calls(in);
	for (size_t i = 0; i < n_in; i++)
		npy_deinit(&in[i]);
	return rc;
}

static json_t *read_meta(const char *dir)
{
	char path[4096];
	json_t *m;

	snprintf(path, sizeof(path), "%s/meta.json", dir);
	m = json_load_file(path, 0, NULL);
	if (!m)
		die("the fixture has no meta.json");
	if (!tolerance_given) {
		rel_tol = json_number_value(json_object_get(m, "rtol"));
		abs_tol = json_number_value(json_object_get(m, "atol"));
	}
	return m;
}

static int run_fixture(const char *dir)
{
	json_t *m = read_meta(dir), *models = json_object_get(m, "models"), *cases, *one;
	const bool in_sequence = json_is_true(json_object_get(m, "sequence"));
	char in[4096], out[4096], package[4096];
	size_t i;
	int rc = 0;

	if (models) {
		m = json_object_get(models, model_name);
		if (!m)
			die("the fixture has several models: give --model");
	}
	snprintf(package, sizeof(package), "%s/model.pt2", dir);
	load_model(package);
	cases = json_object_get(m, "cases");
	if (!cases) {
		snprintf(in, sizeof(in), "%s/%s", dir, json_string_value(json_object_get(m, "in")));
		snprintf(out, sizeof(out), "%s/%s", dir,
			 json_string_value(json_object_get(m, "out")));
		return run_case(in, out, json_object_get(m, "dtypes_in"), 3);
	}
	json_array_foreach(cases, i, one)
	{
		snprintf(in, sizeof(in), "%s/in%s.npz", dir, json_string_value(one));
		snprintf(out, sizeof(out), "%s/out%s.npz", dir, json_string_value(one));
		rc |= run_case(in, out, json_object_get(m, "dtypes_in"), in_sequence ? 1 : 3);
	}
	return rc;
}

static void parse(int argc, char **argv)
{
	static const struct option options[] = {
		{"runtime", 1, 0, 'r'}, {"model", 1, 0, 'm'},	  {"threads", 1, 0, 't'},
		{"rtol", 1, 0, 'R'},	{"atol", 1, 0, 'A'},	  {"no-window", 0, 0, 'w'},
		{"no-pack", 0, 0, 'p'}, {"call-only", 0, 0, 'c'}, {0, 0, 0, 0}};

	for (int c; (c = getopt_long(argc, argv, "n:", options, NULL)) != -1;) {
		switch (c) {
		case 'r':
			runtime_path = optarg;
			break;
		case 'm':
			model_name = optarg;
			break;
		case 't':
			n_threads = atoi(optarg);
			break;
		case 'n':
			n_calls = atoi(optarg);
			break;
		case 'R':
			rel_tol = atof(optarg);
			tolerance_given = true;
			break;
		case 'A':
			abs_tol = atof(optarg);
			tolerance_given = true;
			break;
		case 'w':
			use_window = false;
			break;
		case 'p':
			use_pack = false;
			break;
		case 'c':
			call_only = true;
			break;
		default:
			exit(64);
		}
	}
}

int main(int argc, char **argv)
{
	struct pt2box_error e = {.status = PT2BOX_OK};
	int rc;

	parse(argc, argv);
	if (argc - optind < 1 || argc - optind > 3)
		die("usage: rt_host [options] FIXTURE | PACKAGE IN.npz [OUT.npz]");
	if (pb_backend_load(&b, runtime_path, &e) || pb_backend_warm_up(&b, n_threads, &e))
		die(e.text);
	window = mmap(NULL, window_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		      0);
	if (argc - optind == 1) {
		rc = run_fixture(argv[optind]);
	} else {
		load_model(argv[optind]);
		rc = run_case(argv[optind + 1], argc - optind == 3 ? argv[optind + 2] : NULL, NULL,
			      1);
	}
	printf("%s: %s\n", argv[optind], rc ? "DIFFERS" : "ok");
	fflush(stdout);
	_exit(rc);
}
