/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command as users run it: every fixture against PyTorch's outputs, every verb, every kind of failure, files that
 * appear whole or not at all, and nothing left behind by Ctrl-C.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/broker.h"
#include "tests/lib/fixture.h"

#define MLP "tests/fixtures/mlp/model.pt2"
#define MLP_IN "tests/fixtures/mlp/in.npz"
#define ARGS_MAX 32

static char dir[64], command[512];

/* What the last command printed. */
static char out[1 << 18], err[8192];

/* The same text for the same name, for as long as the program runs. */
static const char *in_dir(const char *name)
{
	static char paths[64][256];
	char path[256];
	size_t i;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	for (i = 0; i < 63 && paths[i][0] && strcmp(paths[i], path) != 0; i++)
		;
	memcpy(paths[i], path, sizeof(path));
	return paths[i];
}

static void slurp(const char *path, char *dst, size_t cap)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, dst, cap - 1) : 0;

	dst[n > 0 ? n : 0] = '\0';
	if (fd >= 0)
		close(fd);
}

static pid_t start(const char *const *args, const char *out_path)
{
	char *argv[ARGS_MAX + 2] = {command};
	pid_t pid;

	for (int i = 0; i < ARGS_MAX && args[i]; i++)
		argv[i + 1] = (char *)(uintptr_t)args[i];
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(open("/dev/null", O_RDONLY), 0);
		dup2(open(out_path, O_WRONLY | O_CREAT | O_TRUNC, 0600), 1);
		dup2(open(in_dir("stderr"), O_WRONLY | O_CREAT | O_TRUNC, 0600), 2);
		closefrom(3);
		execv(command, argv);
		_exit(127);
	}
	assert_true(pid > 0);
	return pid;
}

/* Exit status, or 128 and the signal. */
static int finish(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	slurp(in_dir("stdout"), out, sizeof(out));
	slurp(in_dir("stderr"), err, sizeof(err));
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

#define RUN(...) finish(start((const char *const[]){__VA_ARGS__, NULL}, in_dir("stdout")))

/* An error is one line of the right form. */
static void assert_error(int rc, enum pt2box_status status, const char *says)
{
	char begin[64];
	size_t n = strlen(err);

	snprintf(begin, sizeof(begin), "pt2box: %s: ", pt2box_status_name(status));
	if (rc != (int)status || strncmp(err, begin, strlen(begin)) != 0 || !strstr(err, says))
		fail_msg("exit status %d, not %d: %s", rc, (int)status, err);
	assert_true(n > 0 && strchr(err, '\n') == err + n - 1);
	assert_int_equal(out[0], '\0');
}

static void assert_ok(int rc)
{
	if (rc != 0 || err[0])
		fail_msg("exit status %d: %s", rc, err);
}

/* Names in the folder but those that this test makes. */
static int entries(void)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	int n = 0;

	while ((e = readdir(d)))
		n += e->d_name[0] != '.' || (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0);
	closedir(d);
	return n;
}

/* Everything that descended from us ends by itself. */
static void assert_nothing_left(void)
{
	long until = test_now_ms() + 5000;

	while (test_now_ms() < until) {
		pid_t pid = waitpid(-1, NULL, WNOHANG | __WALL);

		if (pid < 0 && errno == ECHILD)
			return;
		if (pid == 0)
			usleep(5000);
	}
	fail_msg("processes are left");
}

/* ---- fixtures ---- */

static const char *const needs_python[] = {"customop", "opkinds"};

static bool runs_natively(const char *name)
{
	for (size_t i = 0; i < sizeof(needs_python) / sizeof(needs_python[0]); i++)
		if (strcmp(name, needs_python[i]) == 0)
			return false;
	return true;
}

/* @plugin: NULL: none */
static int run_case(const struct test_fixture *f, size_t i, const char *output, const char *plugin)
{
	const struct test_case *c = &f->cases[i];
	const char *args[ARGS_MAX] = {"run", f->package, "--input", c->in, "--output", output, "--backend", "native"};
	char repeat[16];
	size_t n = 8;

	if (c->model[0]) {
		args[n++] = "--name";
		args[n++] = c->model;
	}
	if (f->constants[0]) {
		args[n++] = "--constants";
		args[n++] = f->constants;
	}
	if (plugin) {
		args[n++] = "--ops";
		args[n++] = plugin;
	}
	/* The cases of a sequence have the same inputs. */
	snprintf(repeat, sizeof(repeat), "%zu", i + 1);
	if (f->sequence) {
		args[n++] = "--repeat";
		args[n++] = repeat;
	}
	return finish(start(args, in_dir("stdout")));
}

static void every_fixture(void **state)
{
	struct test_fixture f;
	char name[64], plugin[300];
	size_t n = 0;
	int bad = 0;

	(void)state;
	snprintf(plugin, sizeof(plugin), "%s/tests/plugins/example.so", test_build_dir());
	for (; test_fixture_name(n, name); n++) {
		if (test_fixture_load(name, &f))
			fail_msg("%s", name);
		for (size_t i = 0; i < f.n_cases; i++) {
			const char *o = in_dir("fixture.npz");
			int rc = run_case(&f, i, o, NULL);

			if (!runs_natively(name)) {
				assert_error(rc, PT2BOX_UNSUPPORTED, strcmp(name, "customop") ? "pt2box_kinds::big" : "triple");
				rc = run_case(&f, i, o, plugin);
			}
			if (rc) {
				fprintf(stderr, "%s: exit status %d: %s", f.cases[i].in, rc, err);
				bad++;
			} else if (test_compare_files(&f, &f.cases[i], o)) {
				bad++;
			}
			unlink(o);
		}
	}
	assert_true(n > 30);
	assert_int_equal(bad, 0);
}

/* ---- formats ---- */

static void write_file(const char *path, const struct pb_array_view *v, size_t n)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_int_equal(pb_arrays_write(fd, pb_format_of(path), v, n, NULL), 0);
	close(fd);
}

/* ---- operators by name ---- */

/* Linear algebra in the strict profile too; and what PyTorch says of a matrix that has no inverse. */
static void operators_by_name(void **state)
{
	struct test_fixture f;
	struct test_arrays in;
	const char *o = in_dir("named.npz"), *i = in_dir("singular.npz");

	(void)state;
	assert_int_equal(test_fixture_load("linalg", &f), 0);
	assert_ok(RUN("run", f.package, "-i", f.cases[0].in, "-o", o, "--profile", "strict"));
	assert_int_equal(test_compare_files(&f, &f.cases[0], o), 0);
	assert_ok(RUN("inspect", f.package));
	assert_non_null(strstr(out, "by name     native    aten::linalg_qr\n"));
	assert_non_null(strstr(out, "aten::_linalg_check_errors, 5 calls\n"));
	assert_non_null(strstr(out, "runs on: native"));
	assert_ok(RUN("inspect", "tests/fixtures/opkinds/model.pt2"));
	assert_non_null(strstr(out, "by name     absent    pt2box_kinds::big\n"));
	assert_non_null(strstr(out, "cannot run here"));
	assert_int_equal(test_arrays_read(f.cases[0].in, NULL, 0, &in), 0);
	memset((void *)(uintptr_t)in.v[0].data, 0, 4 * 4 * sizeof(float)); /* the first of a batch */
	write_file(i, in.v, in.n);
	assert_error(RUN("run", f.package, "-i", i, "-o", o), PT2BOX_MODEL_ERROR,
		     "linalg.inv: (Batch element 0): The diagonal element 1 is zero, the inversion could not be completed "
		     "because the input matrix is singular.");
	test_arrays_free(&in);
	unlink(o);
	unlink(i);
}

/* The inputs of a case in one file of another format each, then outputs in each format. */
static void every_format(void **state)
{
	static const char *const formats[] = {"x.npz", "x.npy", "x.safetensors"};
	struct test_fixture f;
	struct test_arrays in, got, want;
	char why[256];

	(void)state;
	assert_int_equal(test_fixture_load("mlp", &f), 0);
	assert_int_equal(test_arrays_read(f.cases[0].in, NULL, 0, &in), 0);
	assert_int_equal(test_arrays_read(f.cases[0].out, NULL, 0, &want), 0);
	for (size_t i = 0; i < 3; i++)
		for (size_t k = 0; k < 3; k++) {
			char path[256], to[300];

			snprintf(path, sizeof(path), "%s/in-%s", dir, formats[i]);
			snprintf(to, sizeof(to), "%s/out-%s", dir, formats[k]);
			write_file(path, in.v, in.n);
			assert_ok(RUN("run", MLP, "-i", path, "-o", to));
			assert_int_equal(test_arrays_read(to, NULL, 0, &got), 0);
			assert_int_equal(got.n, 1);
			if (!test_close(&got.v[0], &want.v[0], f.rtol, f.atol, why))
				fail_msg("%s, %s: %s", formats[i], formats[k], why);
			test_arrays_free(&got);
		}
	test_arrays_free(&in);
	test_arrays_free(&want);
}

/* A transposed file is the same array. */
static void fortran_order(void **state)
{
	struct test_fixture f;
	struct test_arrays in;
	float *turned;
	int64_t strides[2];
	struct pb_array_view v;

	(void)state;
	assert_int_equal(test_fixture_load("mlp", &f), 0);
	assert_int_equal(test_arrays_read(f.cases[0].in, NULL, 0, &in), 0);
	v = in.v[0];
	strides[0] = 1;
	strides[1] = v.sizes[0];
	turned = calloc((size_t)(v.sizes[0] * v.sizes[1]), sizeof(float));
	for (int64_t i = 0; i < v.sizes[0]; i++)
		for (int64_t k = 0; k < v.sizes[1]; k++)
			turned[i + k * v.sizes[0]] = ((const float *)v.data)[i * v.sizes[1] + k];
	v.strides = strides;
	v.data = turned;
	write_file(in_dir("f.npy"), &v, 1);
	assert_ok(RUN("run", MLP, "-i", in_dir("f.npy"), "-o", in_dir("f.npz")));
	assert_int_equal(test_compare_files(&f, &f.cases[0], in_dir("f.npz")), 0);
	free(turned);
	test_arrays_free(&in);
}

/* Two files for the two inputs of a model; bfloat16 as .safetensors. */
static void several_inputs(void **state)
{
	struct test_fixture f;
	struct test_arrays in;

	(void)state;
	assert_int_equal(test_fixture_load("kitchen", &f), 0);
	assert_int_equal(test_arrays_read(f.cases[0].in, f.cases[0].dtypes_in, f.cases[0].n_in, &in), 0);
	assert_int_equal(in.n, 2);
	write_file(in_dir("a.npy"), &in.v[0], 1);
	write_file(in_dir("b.safetensors"), &in.v[1], 1);
	assert_ok(RUN("run", f.package, "-i", in_dir("a.npy"), "-i", in_dir("b.safetensors"), "-o", in_dir("ab.npz")));
	assert_int_equal(test_compare_files(&f, &f.cases[0], in_dir("ab.npz")), 0);
	test_arrays_free(&in);

	assert_int_equal(test_fixture_load("bf16", &f), 0);
	assert_int_equal(test_arrays_read(f.cases[0].in, f.cases[0].dtypes_in, f.cases[0].n_in, &in), 0);
	assert_int_equal(in.v[0].dtype, PT2BOX_BFLOAT16);
	write_file(in_dir("bf.safetensors"), in.v, in.n);
	assert_ok(RUN("run", f.package, "-i", in_dir("bf.safetensors"), "-o", in_dir("bf.npz")));
	assert_int_equal(test_compare_files(&f, &f.cases[0], in_dir("bf.npz")), 0);
	test_arrays_free(&in);
}

static void outputs_as_text(void **state)
{
	(void)state;
	assert_ok(RUN("run", MLP, "-i", MLP_IN));
	assert_non_null(strstr(out, "out0   float32[4, 10]"));
	assert_ok(RUN("run", "tests/fixtures/noneint/model.pt2", "-i", "tests/fixtures/noneint/in.npz"));
	assert_non_null(strstr(out, "out1   None\n"));
}

/* ---- failures ---- */

static void exit_codes(void **state)
{
	const char *o = in_dir("never.npz");
	struct stat sb;

	(void)state;
	assert_int_equal(RUN("run", MLP, "-i", MLP_IN, "--frob"), PT2BOX_USAGE);
	assert_error(PT2BOX_USAGE, PT2BOX_USAGE, "--frob");
	assert_error(RUN("frob"), PT2BOX_USAGE, "frob");
	assert_error(RUN("run"), PT2BOX_USAGE, "package");
	assert_error(RUN("run", "nowhere.pt2", "-i", MLP_IN, "-o", o), PT2BOX_IO, "nowhere.pt2");
	assert_error(RUN("run", "tests", "-i", MLP_IN, "-o", o), PT2BOX_IO, "tests");
	assert_error(RUN("run", MLP, "-i", "nowhere.npz", "-o", o), PT2BOX_IO, "nowhere.npz");
	assert_error(RUN("run", MLP, "-i", MLP, "-o", o), PT2BOX_USAGE, ".npz");
	assert_error(RUN("run", MLP, "-i", MLP_IN, "-o", in_dir("x.txt")), PT2BOX_USAGE, ".npz");
	assert_error(RUN("run", MLP, "-i", MLP_IN, "-o", "/nowhere/x.npz"), PT2BOX_IO, "/nowhere/x.npz");
	assert_error(RUN("run", "Makefile", "-i", MLP_IN, "-o", o), PT2BOX_PKG_REJECTED, "zip");
	assert_error(RUN("inspect", "Makefile"), PT2BOX_PKG_REJECTED, "zip");
	assert_error(RUN("run", MLP, "-i", "tests/fixtures/gpt2/in.npz", "-o", o), PT2BOX_BAD_TENSOR, "in0 int64[1, 12]");
	assert_error(RUN("run", MLP, "-o", o), PT2BOX_BAD_TENSOR, "--input");
	assert_error(RUN("run", MLP, "-i", MLP_IN, "-i", MLP_IN, "-o", o), PT2BOX_BAD_TENSOR, "in0 float32[4, 64] in0");
	assert_error(RUN("run", MLP, "-i", MLP_IN, "--name", "frob"), PT2BOX_NOT_FOUND, "model");
	assert_error(RUN("run", "tests/fixtures/twomodels/model.pt2", "-i", MLP_IN), PT2BOX_NOT_FOUND, "first, second");
	assert_error(RUN("run", "tests/fixtures/kitchen/model.pt2", "-i", "tests/fixtures/kitchen/in.npz", "-o",
			 in_dir("x.npy")),
		     PT2BOX_USAGE, ".npz");
	assert_error(RUN("run", MLP, "-i", MLP_IN, "--socket", "/nowhere/socket"), PT2BOX_BROKER_LOST, "/nowhere/socket");
	assert_error(RUN("ps"), PT2BOX_USAGE, "--socket");
	assert_int_equal(stat(o, &sb), -1);
	assert_int_equal(stat(in_dir("x.npy"), &sb), -1);
	assert_nothing_left();
}

static void a_full_disk(void **state)
{
	(void)state;
	out[0] = '\0';
	unlink(in_dir("stdout"));
	assert_error(finish(start((const char *const[]){"run", MLP, "-i", MLP_IN, NULL}, "/dev/full")), PT2BOX_IO,
		     "standard output");
	assert_error(RUN("run", MLP, "-i", MLP_IN, "-o", "/dev/full"), PT2BOX_USAGE, "/dev/full");
	assert_int_equal(symlink("/dev/full", in_dir("full.npz")), 0);
	assert_error(RUN("run", MLP, "-i", MLP_IN, "-o", in_dir("full.npz")), PT2BOX_IO, "full.npz");
	unlink(in_dir("full.npz"));
}

/* ---- whole or not at all ---- */

static void output_is_replaced_at_once(void **state)
{
	const char *o = in_dir("o.npz");
	char text[64];
	struct stat sb;
	int fd = open(o, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), before;

	(void)state;
	assert_int_equal(write(fd, "old", 3), 3);
	close(fd);
	assert_error(RUN("run", MLP, "-i", "tests/fixtures/gpt2/in.npz", "-o", o), PT2BOX_BAD_TENSOR, "");
	slurp(o, text, sizeof(text));
	assert_string_equal(text, "old");
	before = entries();
	assert_ok(RUN("run", MLP, "-i", MLP_IN, "-o", o));
	slurp(o, text, sizeof(text));
	assert_memory_equal(text, "PK\3\4", 4);
	assert_int_equal(entries(), before);
	/* As any new file: by the umask. */
	assert_int_equal(stat(o, &sb), 0);
	assert_int_equal(sb.st_mode & 0777, 0644);
	unlink(o);
}

/* Killed at many moments, by signals that can be caught and one that cannot. */
static void killed_at_any_time(void **state)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGKILL};
	const char *o = in_dir("k.npz");
	int before = entries(), complete = 0;

	(void)state;
	for (int ms = 0; ms < 90; ms += 2) {
		const char *args[] = {"run", MLP, "-i", MLP_IN, "-o", o, NULL};
		pid_t pid = start(args, in_dir("stdout"));
		struct test_fixture f;
		struct stat sb;
		int rc;

		usleep((useconds_t)ms * 1000);
		kill(pid, signals[ms / 2 % 3]);
		rc = finish(pid);
		if (rc != 0)
			assert_int_equal(rc, 128 + signals[ms / 2 % 3]);
		if (stat(o, &sb) == 0) {
			complete++;
			assert_int_equal(test_fixture_load("mlp", &f), 0);
			assert_int_equal(test_compare_files(&f, &f.cases[0], o), 0);
			unlink(o);
		} else {
			assert_int_not_equal(rc, 0);
		}
	}
	assert_int_equal(entries(), before);
	assert_nothing_left();
	print_message("%d of 45 were complete\n", complete);
}

/* In the middle of runs: workers, warden, broker and spawner end with the command. */
static void ctrl_c_leaves_nothing(void **state)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGKILL};

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		const char *args[] = {"bench", MLP, "-i", MLP_IN, "-n", "100000000", "--runners", "2", "-c", "2", NULL};
		pid_t pid = start(args, in_dir("stdout"));

		usleep(400000);
		assert_int_equal(kill(pid, signals[i]), 0);
		assert_int_equal(finish(pid), 128 + signals[i]);
		assert_int_equal(out[0], '\0');
		assert_nothing_left();
	}
}

/* ---- verbs ---- */

static json_t *parsed(void)
{
	json_error_t e;
	json_t *o = json_loads(out, 0, &e);

	if (!o)
		fail_msg("%s: %s", e.text, out);
	return o;
}

static void help(void **state)
{
	static const char *const verbs[] = {"run", "inspect", "bench", "serve", "doctor", "ps", "top", "metrics"};

	(void)state;
	assert_ok(RUN("--help"));
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		assert_non_null(strstr(out, verbs[i]));
	assert_non_null(strstr(out, "20 PKG_REJECTED"));
	assert_ok(RUN("--version"));
	assert_string_equal(out, "pt2box " PT2BOX_VERSION "\n");
	for (size_t i = 0; i < 6; i++) {
		char want[64];

		assert_ok(RUN(verbs[i], "--help"));
		snprintf(want, sizeof(want), "usage: pt2box %s", verbs[i]);
		if (!strstr(out, want))
			fail_msg("%s", out);
	}
	assert_non_null(strstr(out, "--socket"));
}

static void inspect(void **state)
{
	struct test_fixture f;
	char name[64];
	json_t *o;

	(void)state;
	for (size_t i = 0; test_fixture_name(i, name); i++) {
		const char *model;

		assert_int_equal(test_fixture_load(name, &f), 0);
		model = f.cases[0].model[0] ? f.cases[0].model : "model";
		assert_ok(RUN("inspect", f.package, "--json", "--name", model));
		o = parsed();
		assert_string_equal(json_string_value(json_object_get(o, "model")), model);
		assert_int_equal(json_integer_value(json_object_get(o, "n_inputs")), f.cases[0].n_in);
		assert_int_equal(json_integer_value(json_object_get(o, "n_outputs")), f.cases[0].n_out);
		json_decref(o);
		assert_ok(RUN("inspect", f.package, "--name", model));
		assert_non_null(strstr(out, runs_natively(name) ? "\nruns on: native\n" : "\ncannot run here on native:"));
	}
	assert_ok(RUN("inspect", MLP));
	assert_non_null(strstr(out, ": float32[1..1024, 64]) -> out0\n"));
	assert_ok(RUN("inspect", "tests/fixtures/noneint/model.pt2"));
	assert_non_null(strstr(out, "-> {a: out0"));
}

/* Names and metadata, and nothing that would need the rest of the package. */
static void inspect_metadata(void **state)
{
	json_t *o;

	(void)state;
	assert_ok(RUN("inspect", "tests/fixtures/twomodels/model.pt2", "--metadata", "--json", "--name", "second"));
	o = parsed();
	assert_int_equal(json_object_size(o), 4);
	assert_string_equal(json_string_value(json_object_get(o, "model")), "second");
	assert_string_equal(json_string_value(json_array_get(json_object_get(o, "models"), 0)), "first");
	assert_string_equal(json_string_value(json_object_get(json_object_get(o, "metadata"), "AOTI_DEVICE_KEY")), "cpu");
	json_decref(o);
	assert_ok(RUN("inspect", MLP, "--metadata"));
	assert_non_null(strstr(out, "model, for cpu\n"));
	assert_non_null(strstr(out, "AOTI_PLATFORM = linux"));
	assert_null(strstr(out, "constants"));
	assert_error(RUN("inspect", "tests/fixtures/twomodels/model.pt2", "--metadata"), PT2BOX_NOT_FOUND, "first, second");
	assert_error(RUN("inspect", "Makefile", "--metadata"), PT2BOX_PKG_REJECTED, "zip");
}

static void bench(void **state)
{
	static const char *const keys[] = {"p50_us",	 "p90_us",   "p99_us", "p999_us",	      "runs_per_s",
					   "start_ms", "clients", "package", "worker_private_bytes", "worker_pss_bytes"};
	json_t *o;

	(void)state;
	assert_ok(RUN("bench", MLP, "-i", MLP_IN, "-n", "300", "-c", "2", "--runners", "2", "--json"));
	o = parsed();
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		if (!json_object_get(o, keys[i]))
			fail_msg("there is no %s", keys[i]);
	assert_int_equal(json_integer_value(json_object_get(o, "n")), 300);
	assert_true(json_real_value(json_object_get(o, "p50_us")) > 0);
	assert_true(json_real_value(json_object_get(o, "p50_us")) <= json_real_value(json_object_get(o, "p999_us")));
	assert_true(json_real_value(json_object_get(o, "start_ms")) > 0);
	json_decref(o);
	assert_ok(RUN("bench", MLP, "-i", MLP_IN, "-n", "1"));
	assert_non_null(strstr(out, "throughput"));
	assert_error(RUN("bench", MLP, "-n", "10"), PT2BOX_BAD_TENSOR, "--input");
}

static void doctor(void **state)
{
	json_t *o;
	int rc;

	(void)state;
	rc = RUN("doctor", "--json");
	assert_true(rc == 0 || rc == PT2BOX_LAYER_MISSING);
	o = parsed();
	assert_true(json_array_size(json_object_get(o, "layers")) > 5);
	json_decref(o);
	assert_int_equal(RUN("doctor"), rc);
	assert_non_null(strstr(out, "seccomp run filter"));
}

static void with_a_broker(void **state)
{
	char programs[300], socket[128];
	struct test_broker b;
	struct test_fixture f;
	json_t *o, *models;
	pid_t busy;

	(void)state;
	snprintf(programs, sizeof(programs), "%s/libexec", test_build_dir());
	assert_int_equal(test_broker_start(&b, programs), 0);
	assert_int_equal(test_fixture_load("mlp", &f), 0);
	assert_ok(RUN("run", MLP, "-i", MLP_IN, "-o", in_dir("s.npz"), "--socket", b.socket));
	assert_int_equal(test_compare_files(&f, &f.cases[0], in_dir("s.npz")), 0);
	assert_ok(RUN("ps", "--json", "--socket", b.socket));
	o = parsed();
	assert_int_equal(json_array_size(json_object_get(o, "models")), 0);
	json_decref(o);

	busy = start((const char *const[]){"bench", MLP, "-i", MLP_IN, "-n", "100000000", "--socket", b.socket, NULL},
		     in_dir("other"));
	usleep(500000);
	setenv("PT2BOX_SOCKET", b.socket, 1);
	assert_ok(RUN("ps", "--json"));
	o = parsed();
	models = json_object_get(o, "models");
	assert_int_equal(json_array_size(models), 1);
	assert_string_equal(json_string_value(json_object_get(json_array_get(models, 0), "state")), "ready");
	json_decref(o);
	assert_ok(RUN("ps"));
	assert_non_null(strstr(out, "worker 0"));
	assert_ok(RUN("inspect", MLP));
	assert_int_equal(RUN("doctor"), 0);
	unsetenv("PT2BOX_SOCKET");
	kill(busy, SIGINT);
	assert_int_equal(finish(busy), 128 + SIGINT);
	snprintf(socket, sizeof(socket), "%s", b.socket);
	assert_int_equal(test_broker_stop(&b), 0);
	test_remove_tree(b.dir);
	assert_error(RUN("ps", "--socket", socket), PT2BOX_BROKER_LOST, socket);
}

static void serve(void **state)
{
	const char *socket = in_dir("served");
	const char *args[] = {"serve", "--socket", socket, NULL};
	pid_t pid = start(args, in_dir("stdout"));
	struct stat sb;

	(void)state;
	err[0] = '\0';
	/* Its line, not the socket: the next command writes to the same file of errors. */
	for (long until = test_now_ms() + 10000; !strstr(err, "listening") && test_now_ms() < until; usleep(5000))
		slurp(in_dir("stderr"), err, sizeof(err));
	assert_ok(RUN("run", MLP, "-i", MLP_IN, "--socket", socket));
	kill(pid, SIGTERM);
	assert_int_equal(finish(pid), 0);
	assert_int_equal(stat(socket, &sb), -1);
	assert_nothing_left();
}

static int set_up(void **state)
{
	(void)state;
	unsetenv("PT2BOX_SOCKET");
	unsetenv("PT2BOX_LIBEXEC");
	unsetenv("PT2BOX_VERBOSE");
	umask(022);
	/* Orphans come to us, so that they can be counted. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	snprintf(command, sizeof(command), "%s/pt2box", test_build_dir());
	snprintf(dir, sizeof(dir), "/tmp/pt2box-cmd-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	test_remove_tree(dir);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_fixture),
		cmocka_unit_test(operators_by_name),
		cmocka_unit_test(every_format),
		cmocka_unit_test(fortran_order),
		cmocka_unit_test(several_inputs),
		cmocka_unit_test(outputs_as_text),
		cmocka_unit_test(exit_codes),
		cmocka_unit_test(a_full_disk),
		cmocka_unit_test(output_is_replaced_at_once),
		cmocka_unit_test(killed_at_any_time),
		cmocka_unit_test(ctrl_c_leaves_nothing),
		cmocka_unit_test(help),
		cmocka_unit_test(inspect),
		cmocka_unit_test(inspect_metadata),
		cmocka_unit_test(bench),
		cmocka_unit_test(doctor),
		cmocka_unit_test(with_a_broker),
		cmocka_unit_test(serve),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
