/* SPDX-License-Identifier: Apache-2.0 */
/* See broker.h. */
#include "tests/lib/broker.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

long test_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void nap(void)
{
	struct timespec ts = {0, 10000000};

	nanosleep(&ts, NULL);
}

const char *test_build_dir(void)
{
	const char *b = getenv("B");

	return b && *b ? b : "build";
}

static int count_entries(const char *dir)
{
	DIR *d = opendir(dir);
	int n = 0;

	if (!d)
		return -1;
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* A child of the broker: the spawner, whose number is in the names of its control groups. */
static pid_t child_of(pid_t parent)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	pid_t found = 0;

	while (d && !found && (e = readdir(d)) != NULL) {
		char path[300];
		int ppid = 0;
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%s/stat", e->d_name);
		f = e->d_name[0] >= '0' && e->d_name[0] <= '9' ? fopen(path, "re") : NULL;
		if (f && fscanf(f, "%*d (%*[^)]) %*c %d", &ppid) == 1 && ppid == parent)
			found = (pid_t)atoi(e->d_name);
		if (f)
			fclose(f);
	}
	if (d)
		closedir(d);
	return found;
}

static char group_name[32];
static int n_groups;

static int count_group(const char *path, const struct stat *sb, int type, struct FTW *at)
{
	(void)sb;
	if (type == FTW_D && strcmp(path + at->base, group_name) == 0)
		n_groups++;
	return at->level > 6 ? FTW_SKIP_SUBTREE : FTW_CONTINUE;
}

static int count_groups(pid_t spawner)
{
	n_groups = 0;
	snprintf(group_name, sizeof(group_name), "pt2box-%d", spawner);
	if (spawner)
		nftw("/sys/fs/cgroup", count_group, 16, FTW_PHYS | FTW_ACTIONRETVAL);
	return n_groups;
}

/* Named shared memory of ours: there is none, everything is a memfd. */
static int count_shm(void)
{
	DIR *d = opendir("/dev/shm");
	struct dirent *e;
	int n = 0;

	while (d && (e = readdir(d)) != NULL)
		n += strstr(e->d_name, "pt2box") != NULL;
	if (d)
		closedir(d);
	return n;
}

/* ---- what it holds ---- */

static int parent_of(const char *pid)
{
	char path[300];
	int ppid = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%s/stat", pid);
	f = fopen(path, "re");
	if (f && fscanf(f, "%*d (%*[^)]) %*c %d", &ppid) != 1)
		ppid = -1;
	if (f)
		fclose(f);
	return ppid;
}

/* Pids and their parents in one look, then all that have @top above them. */
static int count_below(pid_t top)
{
	static int pid[8192], ppid[8192];
	DIR *d = opendir("/proc");
	struct dirent *e;
	int n = 0, below = 0;

	while (d && n < 8192 && (e = readdir(d)) != NULL)
		if (e->d_name[0] >= '0' && e->d_name[0] <= '9') {
			pid[n] = atoi(e->d_name);
			ppid[n++] = parent_of(e->d_name);
		}
	if (d)
		closedir(d);
	for (int i = 0; i < n; i++)
		for (int at = ppid[i], depth = 0; at > 1 && depth < 10; depth++) {
			int next = 0;

			if (at == top) {
				below++;
				break;
			}
			for (int k = 0; k < n && !next; k++)
				next = pid[k] == at ? ppid[k] : 0;
			at = next;
		}
	return below;
}

static char below_group[40];

static int count_below_group(const char *path, const struct stat *sb, int type, struct FTW *at)
{
	(void)sb;
	(void)at;
	n_groups += type == FTW_D && strstr(path, below_group) != NULL;
	return FTW_CONTINUE;
}

void test_broker_group_name(const struct test_broker *b, char ret[40])
{
	snprintf(ret, 40, "/pt2box-%d/", child_of(b->pid));
}

void test_broker_resources(const struct test_broker *b, struct test_resources *ret)
{
	n_groups = 0;
	test_broker_group_name(b, below_group);
	nftw("/sys/fs/cgroup", count_below_group, 16, FTW_PHYS | FTW_ACTIONRETVAL);
	*ret = (struct test_resources){.fds = test_broker_fds(b),
				       .processes = count_below(b->pid),
				       .groups = n_groups,
				       .shm = count_shm()};
}

const char *test_broker_back_to(const struct test_broker *b, const struct test_resources *base, long ms)
{
	static char words[160];
	struct test_resources r;

	for (long until = test_now_ms() + ms;; nap()) {
		test_broker_resources(b, &r);
		if (r.fds <= base->fds && r.processes <= base->processes && r.groups <= base->groups && r.shm <= base->shm)
			return NULL;
		if (test_now_ms() >= until)
			break;
	}
	snprintf(words, sizeof(words), "descriptors %d (%d before), processes %d (%d), control groups %d (%d), /dev/shm %d (%d)",
		 r.fds, base->fds, r.processes, base->processes, r.groups, base->groups, r.shm, base->shm);
	return words;
}

static _Noreturn void become_broker(const struct test_broker *b, const char *libexec)
{
	char program[4096];
	int log = open(b->log, O_WRONLY | O_CREAT | O_APPEND, 0600), null = open("/dev/null", O_RDWR);

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	snprintf(program, sizeof(program), "%s/pt2boxd", libexec);
	dup2(null, 0);
	dup2(null, 1);
	dup2(log, 2);
	closefrom(3);
	execl(program, "pt2boxd", "--socket", b->socket, "--verbose", b->config[0] ? "--config" : NULL, b->config, NULL);
	dprintf(2, "cannot execute %s: %s\n", program, strerror(errno));
	_exit(127);
}

/* Its socket has a name before it listens. */
static bool listens(const struct test_broker *b)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	bool ok;

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", b->socket);
	ok = fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
	close(fd);
	return ok;
}

int test_broker_start(struct test_broker *b, const char *libexec)
{
	return test_broker_start_configured(b, libexec, NULL);
}

int test_broker_start_configured(struct test_broker *b, const char *libexec, const char *config)
{
	FILE *f;

	prctl(PR_SET_CHILD_SUBREAPER, 1);
	snprintf(b->dir, sizeof(b->dir), "/tmp/pt2box-test-XXXXXX");
	if (!mkdtemp(b->dir))
		return -1;
	snprintf(b->socket, sizeof(b->socket), "%s/socket", b->dir);
	snprintf(b->log, sizeof(b->log), "%s/log", b->dir);
	b->config[0] = '\0';
	if (config) {
		snprintf(b->config, sizeof(b->config), "%s/config", b->dir);
		f = fopen(b->config, "we");
		if (!f || fputs(config, f) < 0 || fclose(f) != 0 || chmod(b->config, 0644) != 0)
			return -1;
	}
	/* As root the broker and its processes drop to other ids. */
	chmod(b->dir, 0755);
	b->pid = fork();
	if (b->pid == 0)
		become_broker(b, libexec);
	for (long until = test_now_ms() + 5000; test_now_ms() < until; nap()) {
		if (listens(b))
			return 0;
		if (!test_broker_alive(b))
			break;
	}
	fprintf(stderr, "the broker did not start; its log is %s\n", b->log);
	return -1;
}

bool test_broker_alive(const struct test_broker *b)
{
	siginfo_t si = {.si_pid = 0};

	return waitid(P_PID, (id_t)b->pid, &si, WEXITED | WNOHANG | WNOWAIT) == 0 && si.si_pid == 0;
}

int test_broker_fds(const struct test_broker *b)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/fd", b->pid);
	return count_entries(path);
}

long test_broker_rss_kib(const struct test_broker *b)
{
	char path[64], line[128];
	long kib = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", b->pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "VmRSS: %ld", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib;
}

/* Wait for everything that descends from us; returns how many processes are still there after a while. */
static int reap_all(pid_t *broker, long within_ms)
{
	long until = test_now_ms() + within_ms;

	for (;;) {
		pid_t pid = waitpid(-1, NULL, WNOHANG | __WALL);

		if (pid < 0)
			return 0;
		if (pid == *broker)
			*broker = 0;
		if (pid > 0)
			continue;
		if (test_now_ms() >= until)
			return 1;
		nap();
	}
}

int test_broker_stop(struct test_broker *b)
{
	pid_t spawner = child_of(b->pid);
	struct stat sb;
	int left = 0;

	kill(b->pid, SIGTERM);
	if (reap_all(&b->pid, 3000)) {
		fprintf(stderr, "left: processes (the broker %s)\n", b->pid ? "itself too" : "has ended");
		left++;
		if (b->pid)
			kill(b->pid, SIGKILL);
		reap_all(&b->pid, 3000);
	}
	if (stat(b->socket, &sb) == 0) {
		fprintf(stderr, "left: the socket\n");
		left++;
	}
	if (count_shm()) {
		fprintf(stderr, "left: shared memory\n");
		left++;
	}
	if (count_groups(spawner)) {
		fprintf(stderr, "left: control groups\n");
		left++;
	}
	return left;
}

static int remove_entry(const char *path, const struct stat *sb, int type, struct FTW *at)
{
	(void)sb;
	(void)type;
	(void)at;
	return remove(path);
}

void test_remove_tree(const char *path)
{
	nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- ordinary users ---- */

#define ORDINARY_UID 12345 /* not the overflow uid: the broker refuses that one */

void test_paths_init(struct test_paths *p)
{
	snprintf(p->programs, sizeof(p->programs), "%.200s/libexec", test_build_dir());
	snprintf(p->models, sizeof(p->models), "%.200s/tests/hostile", test_build_dir());
	snprintf(p->honest, sizeof(p->honest), "tests/fixtures/mlp");
}

/* Copy the files of @path whose names end in @suffix to @dir/@name, and let @path say so. */
static bool move_to(char path[256], const char *dir, const char *name, const char *suffix)
{
	char to[256], cmd[1024];

	snprintf(to, sizeof(to), "%.200s/%s", dir, name);
	snprintf(cmd, sizeof(cmd), "mkdir -p '%s' && cp -rL '%s'/*%s '%s/' && chmod -R a+rX '%s'", to, path, suffix, to, to);
	memcpy(path, to, sizeof(to));
	return system(cmd) == 0;
}

static bool drop_to_ordinary(void)
{
	/* As if this user had started the test: a change of ids makes a process undumpable, so its children untraceable. */
	return setgroups(0, NULL) == 0 && setresgid(ORDINARY_UID, ORDINARY_UID, ORDINARY_UID) == 0 &&
	       setresuid(ORDINARY_UID, ORDINARY_UID, ORDINARY_UID) == 0 && prctl(PR_SET_DUMPABLE, 1) == 0;
}

int test_as_ordinary_user(struct test_paths *p, int (*run)(void))
{
	char dir[] = "/tmp/pt2box-user-XXXXXX";
	int status = 1;
	pid_t pid;

	if (!mkdtemp(dir))
		return 1;
	chmod(dir, 0755);
	if (!move_to(p->programs, dir, "libexec", "") || !move_to(p->models, dir, "models", ".so") ||
	    !move_to(p->honest, dir, "honest", "")) {
		test_remove_tree(dir);
		return 1;
	}
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		status = drop_to_ordinary() ? run() : 1;
		fflush(NULL);
		_exit(status != 0);
	}
	if (pid > 0)
		waitpid(pid, &status, 0);
	test_remove_tree(dir);
	return status != 0;
}
