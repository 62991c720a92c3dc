/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pt2box batch through real processes: nothing is lost and nothing is in the way, whichever process is killed, whatever an
 * item does, also on a full disk; and what comes out after that is byte for byte what an undisturbed batch writes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/cmd/batch.h"
#include "tests/lib/broker.h"
#include "tests/lib/check.h"
#include "tests/lib/fixture.h"
#include "tests/lib/package.h"

#define ARGS_MAX 32
#define MLP "tests/fixtures/mlp/model.pt2"

static char dir[64], command[512], package[96];
static char err[8192]; /* what the last command said */

/* ---- the command ---- */

/* The same text for the same name, for as long as the program runs. */
static const char *in_dir(const char *name)
{
	static char paths[256][160];
	char path[160];
	size_t i;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	for (i = 0; i < 255 && paths[i][0] && strcmp(paths[i], path) != 0; i++)
		;
	memcpy(paths[i], path, sizeof(path));
	return paths[i];
}

static rlim_t file_limit = RLIM_INFINITY;

static pid_t start(const char *const *args)
{
	char *argv[ARGS_MAX + 3] = {command, (char *)(uintptr_t)"batch"};
	const char *errors = in_dir("stderr");
	pid_t pid;

	for (int i = 0; i < ARGS_MAX && args[i]; i++)
		argv[i + 2] = (char *)(uintptr_t)args[i];
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		struct rlimit l = {file_limit, file_limit};

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(open(errors, O_WRONLY | O_CREAT | O_TRUNC, 0600), 2);
		setrlimit(RLIMIT_FSIZE, &l);
		closefrom(3);
		execv(command, argv);
		_exit(127);
	}
	assert_true(pid > 0);
	return pid;
}

static int finish(pid_t pid)
{
	int status, fd;
	ssize_t n;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	fd = open(in_dir("stderr"), O_RDONLY | O_CLOEXEC);
	n = read(fd, err, sizeof(err) - 1);
	err[n > 0 ? n : 0] = '\0';
	close(fd);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

#define START(...) start((const char *const[]){__VA_ARGS__, NULL})
#define BATCH(...) finish(START(__VA_ARGS__))

static void ended(int rc, int want, const char *says)
{
	if (rc != want || !strstr(err, says))
		fail_msg("exit status %d, not %d with \"%s\": %s", rc, want, says, err);
}

static void nothing_is_left(void)
{
	long until = test_now_ms() + 10000;

	while (test_now_ms() < until) {
		pid_t pid = waitpid(-1, NULL, WNOHANG | __WALL);

		if (pid < 0 && errno == ECHILD)
			return;
		if (pid == 0)
			usleep(5000);
	}
	fail_msg("processes are left");
}

/* ---- items ---- */

static void write_array(const char *path, int ndim, const int64_t *sizes, const float *data)
{
	int64_t strides[2] = {ndim == 2 ? sizes[1] : 1, 1};
	struct pb_array_view v = {"arr_0", PT2BOX_FLOAT32, ndim, sizes, strides, data};
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(pb_arrays_write(fd, pb_format_of(path), &v, 1, NULL), 0);
	close(fd);
}

/* What tests/hostile/poison.c does with it: 0 nothing special, 1 to 5 see there. */
static void write_item(const char *folder, const char *name, int what, int ms)
{
	float x[16];
	char path[512];

	for (int i = 0; i < 16; i++)
		x[i] = (float)(strlen(name) * 100) + (float)name[strlen(name) - 5] + (float)i;
	if (what) {
		x[0] = 666;
		x[1] = (float)what;
		x[2] = (float)ms;
	}
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	write_array(path, 1, (int64_t[]){16}, x);
}

/* @n items in a new folder and folders in it, each of which takes @ms. */
static const char *make_items(const char *name, int n, int ms)
{
	const char *folder = in_dir(name);
	char item[64], sub[600];

	assert_int_equal(mkdir(folder, 0700), 0);
	snprintf(sub, sizeof(sub), "%s/sub", folder);
	assert_int_equal(mkdir(sub, 0700), 0);
	for (int i = 0; i < n; i++) {
		snprintf(item, sizeof(item), i % 3 ? "item%04d.npz" : "sub/item%04d.npz", i);
		write_item(folder, item, ms ? 4 : 0, ms);
	}
	return folder;
}

/* ---- results ---- */

/* Files below a folder, but for hidden ones. */
static int count_files(const char *folder)
{
	DIR *d = opendir(folder);
	struct dirent *e;
	char path[PATH_MAX];
	int n = 0;

	while (d && (e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
		n += e->d_type == DT_DIR ? count_files(path) : 1;
	}
	if (d)
		closedir(d);
	return n;
}

static bool same_file(const char *a, const char *b)
{
	static char x[1 << 16], y[1 << 16];
	int fa = open(a, O_RDONLY | O_CLOEXEC), fb = open(b, O_RDONLY | O_CLOEXEC);
	ssize_t n = fa >= 0 ? read(fa, x, sizeof(x)) : -1, m = fb >= 0 ? read(fb, y, sizeof(y)) : -2;

	close(fa);
	close(fb);
	return n == m && n > 0 && n < (ssize_t)sizeof(x) && memcmp(x, y, (size_t)n) == 0;
}

/* Every file of @a is in @b with the same bytes; returns how many. */
static int same_files(const char *a, const char *b)
{
	DIR *d = opendir(a);
	struct dirent *e;
	char x[PATH_MAX], y[PATH_MAX];
	int n = 0;

	while (d && (e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(x, sizeof(x), "%s/%s", a, e->d_name);
		snprintf(y, sizeof(y), "%s/%s", b, e->d_name);
		if (e->d_type == DT_DIR)
			n += same_files(x, y);
		else if (!same_file(x, y))
			fail_msg("%s is not %s", x, y);
		else
			n++;
	}
	if (d)
		closedir(d);
	return n;
}

static void assert_same(const char *a, const char *b, int n)
{
	assert_int_equal(same_files(a, b), n);
	assert_int_equal(same_files(b, a), n);
}

static bool is_there(const char *folder, const char *name)
{
	char path[PATH_MAX];
	struct stat sb;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return lstat(path, &sb) == 0;
}

/* ---- files ---- */

static void test_files(void **state)
{
	const char *in = make_items("in", 40, 0), *out = in_dir("out");
	struct test_arrays got, from;
	char a[600], b[600];

	(void)state;
	close(open(in_dir("in/notes.txt"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	ended(BATCH(package, "-i", in, "-o", out), 0, "40 done, 0 before, 0 quarantined, 0 left");
	assert_non_null(strstr(err, "1 files are no .npz"));
	assert_int_equal(count_files(out), 40);
	snprintf(a, sizeof(a), "%s/sub/item0000.npz", in);
	snprintf(b, sizeof(b), "%s/sub/item0000.npz", out);
	assert_int_equal(test_arrays_read(a, NULL, 0, &from), 0);
	assert_int_equal(test_arrays_read(b, NULL, 0, &got), 0);
	for (int i = 0; i < 16; i++)
		assert_true(((const float *)got.v[0].data)[i] == 2 * ((const float *)from.v[0].data)[i]);
	test_arrays_free(&from);
	test_arrays_free(&got);
	/* Again: only if it is said; then nothing is left to do but what was taken away. */
	ended(BATCH(package, "-i", in, "-o", out), PT2BOX_DENIED, "--resume");
	ended(BATCH(package, "-i", in, "-o", out, "--resume"), 0, "0 done, 40 before, 0 quarantined, 0 left");
	assert_int_equal(unlink(b), 0);
	ended(BATCH(package, "-i", in, "-o", out, "--resume"), 0, "1 done, 39 before, 0 quarantined, 0 left");
	assert_true(is_there(out, "sub/item0000.npz"));
	/* Another package, other options. */
	ended(BATCH(MLP, "-i", in, "-o", out, "--resume"), PT2BOX_DENIED, "another package");
	ended(BATCH(package, "-i", in, "-o", out, "--resume", "--profile", "strict"), PT2BOX_DENIED, "another options");
	nothing_is_left();
}

static void test_list(void **state)
{
	const char *list = in_dir("list.txt"), *out = in_dir("out");
	FILE *f;

	(void)state;
	make_items("in", 6, 0);
	f = fopen(list, "we");
	fprintf(f, "# three\n%s\n%s\n\n%s\n", in_dir("in/sub/item0000.npz"), in_dir("in/item0001.npz"), in_dir("in/gone.npz"));
	fclose(f);
	ended(BATCH(package, "-i", list, "-o", out), 3, "2 done, 0 before, 1 quarantined, 0 left");
	assert_true(is_there(out, in_dir("in/item0001.npz") + 1));
	f = fopen(list, "we");
	fprintf(f, "a/../../b.npz\n");
	fclose(f);
	ended(BATCH(package, "-i", list, "-o", in_dir("out2")), PT2BOX_USAGE, "..");
	nothing_is_left();
}

static void reason(const char *out, const char *name, const char *says)
{
	char path[PATH_MAX], text[600] = "";
	struct stat sb;
	int fd;

	snprintf(path, sizeof(path), "%s/quarantine/%s.reason.txt", out, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0 || strncmp(text, says, strlen(says)) != 0)
		fail_msg("%s: \"%s\", not %s", name, text, says);
	close(fd);
	assert_false(is_there(out, name));
	/* The input, by a link that leads there. */
	snprintf(path, sizeof(path), "%s/quarantine/%s", out, name);
	assert_int_equal(stat(path, &sb), 0);
}

static void test_quarantine(void **state)
{
	const char *in = make_items("in", 30, 0), *out = in_dir("out");
	float wrong[8] = {0};
	char path[600];
	int fd;

	(void)state;
	write_item(in, "crash.npz", 1, 0);
	write_item(in, "sub/hang.npz", 2, 0);
	write_item(in, "exit.npz", 3, 0);
	write_item(in, "no.npz", 5, 0);
	snprintf(path, sizeof(path), "%s/shape.npz", in);
	write_array(path, 1, (int64_t[]){8}, wrong);
	snprintf(path, sizeof(path), "%s/cut.npz", in);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, "PK\3\4", 4), 4);
	close(fd);
	ended(BATCH(package, "-i", in, "-o", out, "--deadline", "300"), 3, "30 done, 0 before, 6 quarantined, 0 left");
	reason(out, "crash.npz", "MODEL_CRASHED: ");
	reason(out, "sub/hang.npz", "MODEL_TIMEOUT: ");
	reason(out, "exit.npz", "MODEL_EXITED: ");
	reason(out, "no.npz", "MODEL_ERROR: ");
	reason(out, "shape.npz", "BAD_TENSOR: ");
	reason(out, "cut.npz", "BAD_TENSOR: ");
	/* They are not tried again. */
	ended(BATCH(package, "-i", in, "-o", out, "--resume"), 3, "0 done, 30 before, 6 quarantined, 0 left");
	nothing_is_left();
}

static void test_max_failures(void **state)
{
	const char *in = make_items("in", 20, 20), *out = in_dir("out");
	char name[32];

	(void)state;
	for (int i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "bad%d.npz", i);
		write_item(in, name, 5, 0);
	}
	ended(BATCH(package, "-i", in, "-o", out, "--max-failures", "3"), 1, "more than 3 items failed; --resume");
	ended(BATCH(package, "-i", in, "-o", out, "--resume"), 3, "8 quarantined, 0 left");
	nothing_is_left();
}

/* ---- killed ---- */

static void await_results(const char *out, int n)
{
	long until = test_now_ms() + 20000;

	while (count_files(out) < n && test_now_ms() < until)
		usleep(2000);
	assert_true(count_files(out) >= n);
}

/* The batch, and with it all that runs for it. */
static void test_killed(void **state)
{
	const char *in = make_items("in", 60, 15), *whole = in_dir("whole"), *out = in_dir("out");
	int kills = 0, rc;

	(void)state;
	write_item(in, "crash.npz", 1, 0);
	ended(BATCH(package, "-i", in, "-o", whole, "-w", "2"), 3, "60 done");
	for (int after = 4; after <= 44; after += 8, kills++) {
		pid_t pid = START(package, "-i", in, "-o", out, "-w", "2", "--resume");

		await_results(out, after);
		kill(pid, SIGKILL);
		assert_int_equal(finish(pid), 128 + SIGKILL);
	}
	rc = BATCH(package, "-i", in, "-o", out, "-w", "2", "--resume");
	ended(rc, 3, "1 quarantined, 0 left");
	assert_null(strstr(err, ", 0 before")); /* the journal was of use */
	assert_same(whole, out, 62);
	assert_false(is_there(out, ".pt2box/tmp-0-0"));
	nothing_is_left();
}

/* Ended by a signal: what is in flight is done and entered. */
static void test_interrupted(void **state)
{
	const char *in = make_items("in", 60, 15), *out = in_dir("out");
	char before[64];
	pid_t pid;

	(void)state;
	pid = START(package, "-i", in, "-o", out, "-w", "2");
	await_results(out, 5);
	kill(pid, SIGINT);
	ended(finish(pid), 1, "ended by SIGINT; --resume");
	snprintf(before, sizeof(before), "%d done, ", count_files(out));
	assert_non_null(strstr(err, before));
	assert_true(count_files(out) < 60);
	snprintf(before, sizeof(before), " %d before, 0 quarantined, 0 left", count_files(out));
	ended(BATCH(package, "-i", in, "-o", out, "-w", "2", "--resume"), 0, before);
	nothing_is_left();
}

static long worker_of(const struct test_broker *b)
{
	struct pt2box *c;
	char *ps, *at;
	long pid = 0;

	if (pt2box_open(b->socket, &c, NULL))
		return 0;
	if (pt2box_ps(c, &ps, NULL) == PT2BOX_OK) {
		at = strstr(ps, "\"workers\":");
		at = at ? strstr(at, "\"pid\":") : NULL;
		pid = at ? strtol(at + 6, NULL, 10) : 0;
		pt2box_free_text(ps);
	}
	pt2box_close(c);
	return pid;
}

/* Workers are killed all the time: nobody notices. Then the broker: the batch says so, and another goes on. */
static void test_others_killed(void **state)
{
	const char *in = make_items("in", 80, 15), *whole = in_dir("whole"), *out = in_dir("out");
	struct test_paths paths;
	struct test_broker b;
	int kills = 0;
	pid_t pid;

	(void)state;
	test_paths_init(&paths);
	ended(BATCH(package, "-i", in, "-o", whole, "-w", "2"), 0, "80 done");
	assert_int_equal(test_broker_start(&b, paths.programs), 0);
	pid = START(package, "-i", in, "-o", out, "-w", "2", "--socket", b.socket);
	for (int seen = 1; seen < 60; seen = count_files(out)) {
		long worker;

		await_results(out, seen);
		worker = worker_of(&b);
		kills += worker > 1 && kill((pid_t)worker, SIGKILL) == 0;
		usleep(40000);
	}
	assert_true(kills > 2);
	ended(finish(pid), 0, "80 done, 0 before, 0 quarantined, 0 left");
	assert_same(whole, out, 80);
	test_remove_tree(out);
	pid = START(package, "-i", in, "-o", out, "-w", "2", "--socket", b.socket);
	await_results(out, 10);
	kill(b.pid, SIGKILL);
	ended(finish(pid), 1, "BROKER_LOST");
	assert_true(count_files(out) < 80);
	ended(BATCH(package, "-i", in, "-o", out, "-w", "2", "--resume"), 0, "0 quarantined, 0 left");
	assert_same(whole, out, 80);
	waitpid(b.pid, NULL, 0);
	test_remove_tree(b.dir);
	nothing_is_left();
}

/* ---- shards ---- */

static void test_shards(void **state)
{
	const char *in = make_items("in", 50, 0), *whole = in_dir("whole"), *out = in_dir("out");
	static const char *const part[] = {"0/3", "1/3", "2/3"};

	(void)state;
	ended(BATCH(package, "-i", in, "-o", whole), 0, "50 done");
	for (int i = 0; i < 3; i++) {
		int was = count_files(out);

		ended(BATCH(package, "-i", in, "-o", out, "--shard", part[i]), 0, ", 0 left");
		assert_in_range(count_files(out) - was, 5, 30);
	}
	assert_same(whole, out, 50);
	ended(BATCH(package, "-i", in, "-o", out, "--shard", "3/3"), PT2BOX_USAGE, "--shard 3/3");
	nothing_is_left();
}

/* ---- rows ---- */

static void test_rows(void **state)
{
	static const char *const names[] = {"rows.npz", "rows.npy", "rows.safetensors"};
	static float x[103 * 64];
	struct test_arrays part, once;

	(void)state;
	for (int i = 0; i < 103 * 64; i++)
		x[i] = (float)(i * 37 % 101) / 101;
	for (int k = 0; k < 3; k++) {
		const char *file = in_dir(names[k]), *out = in_dir("out"), *dot = strrchr(names[k], '.');
		char name[64];

		write_array(file, 2, (int64_t[]){103, 64}, x);
		ended(BATCH(MLP, "-i", file, "-o", out, "-b", "4"), 0, "26 done, 0 before, 0 quarantined, 0 left");
		for (int i = 0; i < 26; i++) {
			const int64_t n = i < 25 ? 4 : 3;
			float four[4 * 64];

			/* The same rows as a file of their own. */
			for (int r = 0; r < 4; r++)
				memcpy(four + r * 64, x + (i * 4 + (r < n ? r : n - 1)) * 64, 256);
			mkdir(in_dir("four"), 0700);
			write_array(in_dir("four/four.npz"), 2, (int64_t[]){4, 64}, four);
			snprintf(name, sizeof(name), "out/part-%08d%s", i, dot);
			if (test_arrays_read(in_dir(name), NULL, 0, &part))
				fail_msg("%s", name);
			assert_int_equal(part.v[0].sizes[0], n);
			if (i % 5 == 0) {
				test_remove_tree(in_dir("one"));
				ended(BATCH(MLP, "-i", in_dir("four"), "-o", in_dir("one"), "-w", "1"), 0, "1 done");
				assert_int_equal(test_arrays_read(in_dir("one/four.npz"), NULL, 0, &once), 0);
				assert_memory_equal(part.v[0].data, once.v[0].data, (size_t)n * 40);
				test_arrays_free(&once);
			}
			test_arrays_free(&part);
		}
		test_remove_tree(out);
	}
	ended(BATCH(MLP, "-i", in_dir("rows.npz"), "-o", in_dir("out"), "-b", "2000"), PT2BOX_USAGE, "1 to 1024 rows");
	nothing_is_left();
}

/* ---- full disks ---- */

/* No file may be larger than 40 KiB: the journal is what grows. A broker of its own, whose memory is files too, has no limit. */
static void test_file_limit(void **state)
{
	const char *in = make_items("in", 400, 0), *whole = in_dir("whole"), *out = in_dir("out");
	struct test_paths paths;
	struct test_broker b;

	(void)state;
	test_paths_init(&paths);
	assert_int_equal(test_broker_start(&b, paths.programs), 0);
	ended(BATCH(package, "-i", in, "-o", whole), 0, "400 done");
	file_limit = 40960;
	ended(BATCH(package, "-i", in, "-o", out, "--socket", b.socket), 1, "the journal in ");
	file_limit = RLIM_INFINITY;
	assert_int_equal(test_broker_stop(&b), 0);
	ended(BATCH(package, "-i", in, "-o", out, "--resume"), 0, "0 quarantined, 0 left");
	assert_same(whole, out, 400);
	nothing_is_left();
}

static void test_full_disk(void **state)
{
	const char *in = make_items("in", 400, 0), *whole = in_dir("whole");
	char disk[96], out[128];

	(void)state;
	snprintf(disk, sizeof(disk), "%s/disk", dir);
	snprintf(out, sizeof(out), "%s/disk/out", dir);
	assert_int_equal(mkdir(disk, 0700), 0);
	if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount("pt2box-test", disk, "tmpfs", 0, "size=900k") != 0)
		skip();
	ended(BATCH(package, "-i", in, "-o", whole), 0, "400 done");
	ended(BATCH(package, "-i", in, "-o", out), 1, "--resume goes on with it");
	assert_non_null(strstr(err, ": make room there"));
	assert_in_range(count_files(out), 20, 380);
	assert_int_equal(mount(NULL, disk, NULL, MS_REMOUNT, "size=90m"), 0);
	ended(BATCH(package, "-i", in, "-o", out, "--resume"), 0, "0 quarantined, 0 left");
	assert_same(whole, out, 400);
	umount(disk);
	nothing_is_left();
}

/* ---- what is refused ---- */

static void test_refused(void **state)
{
	const char *in = make_items("in", 2, 0);

	(void)state;
	ended(BATCH(package, "-i", in), PT2BOX_USAGE, "--output");
	ended(BATCH(package, "-i", in, "-o", in), PT2BOX_USAGE, "same folder");
	ended(BATCH(package, "-i", in_dir("nothing"), "-o", in_dir("out")), PT2BOX_IO, "nothing");
	ended(BATCH("tests/fixtures/mutbuf/model.pt2", "-i", in, "-o", in_dir("out")), PT2BOX_UNSUPPORTED, "state");
	/* Results in a folder of the inputs are no inputs. */
	ended(BATCH(package, "-i", in, "-o", in_dir("in/results")), 0, "2 done, 0 before, 0 quarantined, 0 left");
	ended(BATCH(package, "-i", in, "-o", in_dir("in/results"), "--resume"), 0, "0 done, 2 before, 0 quarantined, 0 left");
	nothing_is_left();
}

/* ---- main ---- */

static int set_up(void **state)
{
	struct test_package p = {0};
	char so[300];

	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/pt2box-batch-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(so, sizeof(so), "%s/tests/hostile/poison.3.so", test_build_dir());
	snprintf(package, sizeof(package), "%s/poison.pt2", dir);
	p.so_path = so;
	return test_package_write(package, &p);
}

static int tear_down(void **state)
{
	(void)state;
	file_limit = RLIM_INFINITY;
	test_remove_tree(dir);
	return 0;
}

static int prepare(void **state)
{
	(void)state;
	unsetenv("PT2BOX_SOCKET");
	unsetenv("PT2BOX_VERBOSE");
	umask(022);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	snprintf(command, sizeof(command), "%s/pt2box", test_build_dir());
	return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_files),     TEST(test_list),	    TEST(test_quarantine),    TEST(test_max_failures),
		TEST(test_killed),    TEST(test_interrupted), TEST(test_others_killed), TEST(test_shards),
		TEST(test_rows),      TEST(test_file_limit),  TEST(test_refused),	      TEST(test_full_disk),
	};

	return cmocka_run_group_tests(tests, prepare, NULL);
}
