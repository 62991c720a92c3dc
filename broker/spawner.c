/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spawner: forked from the broker before it did anything, the only process with rights (root's, or those of a user
 * namespace of its own). It does one thing: start intake and wardens in new namespaces with exactly the descriptors that
 * the broker sent, and report their end. It parses nothing from outside. When the broker is gone it kills all and goes.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "broker/broker.h"
#include "confine/confine.h"
#include "confine/test_layers.h"
#include "ipc/checked.h"
#include "ipc/fdmap.h"
#include "ipc/spare.h"

#define CHILDREN_MAX 1024
_Static_assert(CHILDREN_MAX < 4096, "uids of a spawner, and one for a probe");
#define SPARE_IDLE_MS 10000
#define PYTHON_PIDS 16 /* libraries may try threads as they are imported; later the filter knows none */
#define END_MS 5000
#define PROBE_BYTES_MAX 8192 /* of a message */
#define FD_HIGH 200 /* descriptors on their way to their numbers wait above this */

struct child {
	uint32_t id; /* 0: a spare */
	pid_t pid;   /* 0: free */
	bool again;  /* others of its kind will follow */
	struct pb_cgroup *cgroup;
};

struct spawner {
	int sock, sigfd, null_fd;
	const char *libexec, *torch, *python;
	const char *unlink_path; /* NULL: none */
	struct stat unlink_id;	 /* of what is to be removed there */
	bool root;
	uint32_t uid_base;
	struct child child[CHILDREN_MAX];
	struct child *spare; /* an intake that waits for a job; NULL: none */
	int spare_sock;
	bool repeats; /* a second job of a kind that is asked for again and again */
	struct pb_rx rx;
};

static void reply_failed(struct spawner *s, uint64_t id, const struct pt2box_error *e)
{
	struct pb_msg_spawn_failed m = {.id = id, .status = e->status};

	snprintf(m.text, sizeof(m.text), "%s", e->text);
	(void)!pb_send(s->sock, PB_MSG_spawn_failed, &m, NULL, 0, NULL);
}

struct job {
	uint64_t id;
	const char *program;	 /* in the private folder */
	const char *interpreter; /* runs it, by its path; NULL: it is a program itself */
	char *const *envp;	 /* NULL: nothing */
	char *argv[PB_SPARE_ARGS];
	const int *fds; /* borrowed */
	size_t n_fds;
	int target[PB_FDS_MAX]; /* number in the child of each of them */
	struct pb_cgroup_limits limits;
};

/* In the child: every descriptor at its number, nothing else open, nothing in the environment that was not chosen here. */
static _Noreturn void become(struct spawner *s, const struct job *j, int go_fd)
{
	char path[4096], byte;
#ifdef PB_TEST_LAYERS
	char *const nothing[] = {pb_test_layers_pass_on(), NULL};
#else
	char *const nothing[] = {NULL};
#endif
	int max = 2, high[PB_FDS_MAX];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (read(go_fd, &byte, 1) != 1) /* until it is in its cgroup */
		_exit(126);
	for (size_t i = 0; i < j->n_fds; i++)
		high[i] = fcntl(j->fds[i], F_DUPFD_CLOEXEC, FD_HIGH);
	s->null_fd = fcntl(s->null_fd, F_DUPFD_CLOEXEC, FD_HIGH);
	for (size_t i = 0; i < j->n_fds; i++) {
		if (dup2(high[i], j->target[i]) < 0)
			_exit(126);
		max = j->target[i] > max ? j->target[i] : max;
	}
	if (dup2(s->null_fd, 0) < 0 || dup2(s->null_fd, 1) < 0)
		_exit(126);
	/* Holes below the highest number: close what is not a target. */
	for (int fd = 3; fd < max; fd++) {
		bool wanted = false;

		for (size_t i = 0; i < j->n_fds; i++)
			wanted |= j->target[i] == fd;
		if (!wanted)
			close(fd);
	}
	close_range((unsigned)max + 1, ~0u, 0);
	setsid();
	snprintf(path, sizeof(path), "%s/%s", s->libexec, j->program);
	execve(j->interpreter ? j->interpreter : path, j->argv, j->envp ? j->envp : nothing);
	dprintf(2, "cannot execute %s: %s\n", path, strerror(errno));
	_exit(127);
}

static pid_t clone_child(struct spawner *s, const struct job *j, int go_fd)
{
	/* Network, IPC and UTS namespaces are the spawner's own, empty ones, made once. */
	const long own_pids = pb_test_layer_off("pid") ? 0 : CLONE_NEWPID;
	long pid = syscall(SYS_clone, own_pids | CLONE_NEWNS | SIGCHLD, NULL, NULL, NULL, NULL);

	if (pid == 0)
		become(s, j, go_fd);
	return (pid_t)pid;
}

static struct child *free_child(struct spawner *s)
{
	for (int i = 0; i < CHILDREN_MAX; i++)
		if (s->child[i].pid == 0)
			return &s->child[i];
	return NULL;
}

/* NULL: it could not be started, *err says why. */
static struct child *start_child(struct spawner *s, const struct job *j, struct pt2box_error *err)
{
	struct child *c = free_child(s);
	int go[2];
	pid_t pid;

	if (!c || pipe2(go, O_CLOEXEC) != 0) {
		pb_error_set(err, PT2BOX_LIMIT, "too many processes");
		return NULL;
	}
	pid = clone_child(s, j, go[0]);
	close(go[0]);
	if (pid < 0) {
		pb_error_sys(err, "cannot make a process with its own namespaces");
		close(go[1]);
		return NULL;
	}
	c->id = (uint32_t)j->id;
	c->pid = pid;
	c->again = false;
	c->cgroup = pb_cgroup_new((uint32_t)j->id, &j->limits, pid);
	(void)!write(go[1], "g", 1);
	close(go[1]);
	return c;
}

static void say_spawned(struct spawner *s, const struct child *c)
{
	struct pb_msg_spawned m = {.id = c->id, .pid = (uint64_t)c->pid};
	PB_CLEANUP(pb_close_fd) int kills = pb_cgroup_oom_file(c->cgroup);

	(void)!pb_send(s->sock, PB_MSG_spawned, &m, &kills, kills >= 0, NULL);
}

static struct child *start(struct spawner *s, const struct job *j)
{
	struct pt2box_error e = {.status = PT2BOX_OK};
	struct child *c = start_child(s, j, &e);

	if (c)
		say_spawned(s, c);
	else
		reply_failed(s, j->id, &e);
	return c;
}

/*
 * As root every process gets a uid that nothing else has; in a user namespace there is only one. By place in the table,
 * which is free again only when the whole namespace is: ids come round while old ones still live.
 */
static void identity_args(struct spawner *s, const struct child *c, char uid[16])
{
	snprintf(uid, 16, "%u", s->root && c ? s->uid_base + (uint32_t)(c - s->child) : 0);
}

/* ---- intakes ---- */

static void make_spare(struct spawner *s)
{
	int fds[2] = {s->null_fd, -1}, p[2];
	const struct job j = {.program = "pt2box-intake",
			      .argv = {"pt2box-intake", "--wait"},
			      .fds = fds,
			      .n_fds = 2,
			      .target = {PB_FD_STDERR, PB_SPARE_FD}};

	if (s->spare || pb_socket_pair(p, NULL))
		return;
	fds[1] = p[1];
	s->spare = start_child(s, &j, NULL);
	close(p[1]);
	s->spare_sock = p[0];
	if (!s->spare)
		close(p[0]);
}

/* It reads the end of its socket and goes. */
static void drop_spare(struct spawner *s)
{
	if (s->spare)
		close(s->spare_sock);
	s->spare = NULL;
}

static bool pack_args(const struct job *j, struct pb_spare_job *p)
{
	size_t at = 0;

	for (; j->argv[p->n_args]; p->n_args++) {
		size_t n = strlen(j->argv[p->n_args]) + 1;

		if (n > sizeof(p->args) - at)
			return false;
		memcpy(p->args + at, j->argv[p->n_args], n);
		at += n;
	}
	return true;
}

/* NULL: there is no spare, or it did not take the job. */
static struct child *give_spare(struct spawner *s, const struct job *j)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * PB_FDS_MAX)];
		struct cmsghdr align;
	} control = {.buf = {0}};
	struct pb_spare_job p = {.n_args = 0};
	struct iovec iov = {&p, sizeof(p)};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf,
			   .msg_controllen = CMSG_SPACE(sizeof(int) * j->n_fds)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&h);
	struct child *spare = s->spare;

	if (!spare || !pack_args(j, &p))
		return NULL;
	for (size_t i = 0; i < j->n_fds; i++)
		p.target[i] = j->target[i];
	*c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int) * j->n_fds)};
	memcpy(CMSG_DATA(c), j->fds, sizeof(int) * j->n_fds);
	if (sendmsg(s->spare_sock, &h, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)sizeof(p))
		return NULL;
	spare->id = (uint32_t)j->id;
	drop_spare(s);
	say_spawned(s, spare);
	return spare;
}

/*
 * @again: jobs of this kind come one after the other: from the second one on the next shall find a process that is ready, made
 * when this one has ended, which needs the CPU. Who asks once would have to wait for the spare's end. No control group, which takes 10 ms to join: its filter lets an intake start nothing, its
 * rlimits hold its memory.
 */
static void start_intake(struct spawner *s, struct job *j, bool again)
{
	struct child *c;

	j->program = "pt2box-intake";
	j->fds = s->rx.fds.fd;
	j->n_fds = s->rx.fds.n;
	c = give_spare(s, j);
	if (!c)
		c = start(s, j);
	if (c)
		c->again = again && s->repeats;
	s->repeats |= again;
}

static void intake_identity(struct spawner *s, char uid[16])
{
	identity_args(s, s->spare ? s->spare : free_child(s), uid);
}

static void spawn_intake(struct spawner *s, struct pb_msg_spawn_intake *m)
{
	static const int target[] = {PB_FD_STDERR,	    PB_FD_RESULT,	 PB_FD_PACKAGE,
				     PB_FD_OUT_MODEL,	    PB_FD_OUT_CONSTANTS, PB_FD_OUT_MANIFEST,
				     PB_FD_CONSTANTS_FILE};
	char uid[16], max[24];
	struct job j = {.id = m->id,
			.argv = {"pt2box-intake", "--model", m->model, "--max-package-bytes", max, "--uid", uid, "--gid",
				 uid, m->inspect == 2 ? "--brief" : m->inspect ? "--inspect" : NULL, NULL}};

	snprintf(max, sizeof(max), "%llu", (unsigned long long)m->max_bytes);
	intake_identity(s, uid);
	memcpy(j.target, target, sizeof(target));
	start_intake(s, &j, m->inspect);
	if (!m->inspect)
		pb_cgroup_expect(); /* the model follows */
}

/* The same program, confined in the same way. */
static void spawn_constants(struct spawner *s, struct pb_msg_spawn_constants *m)
{
	static const int target[] = {PB_FD_STDERR, PB_FD_RESULT,  PB_FD_IN_MANIFEST,  PB_FD_IN_FILE,
				     PB_FD_IN_OUT, PB_FD_IN_BASE, PB_FD_IN_PARAMETERS};
	char uid[16], max[24], base[24], parameters[24];
	struct job j = {.id = m->id,
			.argv = {"pt2box-intake", "--constants", "--max-bytes", max, "--base-offset", base,
				 "--parameters-offset", parameters, "--uid", uid, "--gid", uid}};
	int n = 12;

	if (m->full)
		j.argv[n++] = "--full";
	if (m->names)
		j.argv[n++] = "--names";
	snprintf(max, sizeof(max), "%llu", (unsigned long long)m->max_bytes);
	snprintf(base, sizeof(base), "%llu", (unsigned long long)m->base_offset);
	snprintf(parameters, sizeof(parameters), "%llu", (unsigned long long)m->parameters_offset);
	intake_identity(s, uid);
	memcpy(j.target, target, sizeof(target));
	start_intake(s, &j, true);
}

static void spawn_compare(struct spawner *s, struct pb_msg_spawn_compare *m)
{
	static const int target[] = {PB_FD_STDERR, PB_FD_RESULT, PB_FD_IN_ONE, PB_FD_IN_OTHER};
	char uid[16];
	struct job j = {.id = m->id,
			.argv = {"pt2box-intake", "--compare", "--uid", uid, "--gid", uid}};

	intake_identity(s, uid);
	memcpy(j.target, target, sizeof(target));
	start_intake(s, &j, false);
}

static void spawn_warden(struct spawner *s, struct pb_msg_spawn_warden *m)
{
	static const int target[] = {PB_FD_STDERR,    PB_FD_WARDEN_CTL, PB_FD_TEMPLATE_CTL, PB_FD_MODEL,
				     PB_FD_CONSTANTS, PB_FD_MANIFEST,	PB_FD_BOARD};
	char uid[16], threads[16], tasks[16], memory[24], change_seq[16], runtime[4096];
	struct job j = {.id = m->id,
			.program = "pt2box-worker",
			.fds = s->rx.fds.fd,
			.n_fds = s->rx.fds.n,
			.argv = {"pt2box-worker", "--backend", m->backend, "--profile", m->profile, "--runtime", runtime,
				 "--threads", threads, "--tasks", tasks, "--memory", memory, "--uid", uid, "--gid",
				 uid, "--change-seq", change_seq}};
	int n = 19;

	if (m->explain)
		j.argv[n++] = "--explain";
	if (m->lapack)
		j.argv[n++] = "--lapack";
	if (m->ops)
		j.argv[n++] = "--ops";

	snprintf(threads, sizeof(threads), "%llu", (unsigned long long)m->threads);
	snprintf(tasks, sizeof(tasks), "%llu", (unsigned long long)m->tasks);
	snprintf(memory, sizeof(memory), "%llu", (unsigned long long)m->memory_bytes);
	snprintf(change_seq, sizeof(change_seq), "%llu", (unsigned long long)m->change_seq);
	if (strcmp(m->backend, "torch") == 0)
		snprintf(runtime, sizeof(runtime), "%s", s->torch);
	else
		snprintf(runtime, sizeof(runtime), "%s/libtorch_cpu.so", s->libexec);
	identity_args(s, free_child(s), uid);
	/* The template and each worker: their own memory. */
	if (!pb_mul_u64(m->memory_bytes, m->runners + 1, &j.limits.memory_bytes) || j.limits.memory_bytes > INT64_MAX)
		j.limits.memory_bytes = INT64_MAX; /* more than there is, but not what is left after an overflow */
	j.limits.pids = (uint32_t)m->tasks;
	j.limits.tenant = (uint32_t)m->tenant;
	j.limits.cpu_weight = (uint32_t)m->cpu_weight;
	j.limits.cpu_max = (uint32_t)m->cpu_max;
	memcpy(j.target, target, sizeof(target));
	start(s, &j);
}

/* What hosts operators, by name. @place: what the machine has of it, which the program is told; NULL: it needs nothing. */
struct ops_host {
	const char *name, *program, *option, *place;
	uint32_t pids;
	const char *interpreter; /* NULL: the program is one itself */
};

static bool find_host(const struct spawner *s, const char *name, struct ops_host *ret)
{
	const struct ops_host hosts[] = {
		{"plugin", "pt2box-ops", NULL, NULL, 1, NULL},
		{"torch", "pt2box-ops", "--torch", s->torch, 8, NULL}, /* it warms up on threads that end */
		{"python", "python/host.py", NULL, NULL, PYTHON_PIDS, s->python},
	};

	for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
		if (strcmp(hosts[i].name, name) != 0)
			continue;
		*ret = hosts[i];
		return (!ret->option || ret->place[0]) && (!ret->interpreter || ret->interpreter[0]);
	}
	return false;
}

/*
 * An interpreter that takes nothing from its environment (-I), runs no lines of the machine's .pth files (-S) and writes no byte
 * code (-B). Its libraries start no threads: none may be left when its sandbox closes, and none can start then.
 */
static void interpret(struct spawner *s, struct job *j, const char *interpreter, char script[4096])
{
	static char *const envp[] = {"OPENBLAS_NUM_THREADS=1", "OMP_NUM_THREADS=1", "MKL_NUM_THREADS=1",
				     "NUMEXPR_NUM_THREADS=1",  "LC_ALL=C.UTF-8",    NULL};
	char *const head[] = {(char *)(uintptr_t)interpreter, "-I", "-S", "-B", script};
	const size_t n = sizeof(head) / sizeof(head[0]);
	size_t args = 1;

	while (j->argv[args])
		args++;
	memmove(j->argv + n, j->argv + 1, args * sizeof(*j->argv)); /* with the NULL */
	memcpy(j->argv, head, sizeof(head));
	snprintf(script, 4096, "%s/%s", s->libexec, j->program);
	j->interpreter = interpreter;
	j->envp = envp;
}

static void spawn_ops(struct spawner *s, struct pb_msg_spawn_ops *m)
{
	static const int target[] = {PB_FD_STDERR, PB_FD_OPS_CTL, PB_FD_OPS_MANIFEST, PB_FD_OPS_BOARD, PB_FD_OPS_PLUGIN};
	char uid[16], memory[24], results[24], script[4096];
	struct job j = {.id = m->id,
			.fds = s->rx.fds.fd,
			.n_fds = s->rx.fds.n,
			.argv = {"pt2box-ops", "--memory", memory, "--result-bytes", results, "--uid", uid, "--gid", uid},
		.limits = {.memory_bytes = m->memory_bytes,
			   .tenant = (uint32_t)m->tenant,
			   .cpu_weight = (uint32_t)m->cpu_weight,
			   .cpu_max = (uint32_t)m->cpu_max}};
	struct pt2box_error e;
	struct ops_host host;
	int n = 9;

	if (!find_host(s, m->host, &host)) {
		pb_error_set(&e, PT2BOX_UNSUPPORTED, "operators: there is no host \"%.15s\"", m->host);
		reply_failed(s, m->id, &e);
		return;
	}
	j.argv[n++] = "--some";
	j.argv[n++] = m->some ? "1" : "0";
	j.program = host.program;
	j.limits.pids = host.pids;
	if (host.option) {
		j.argv[n++] = (char *)(uintptr_t)host.option;
		j.argv[n++] = (char *)(uintptr_t)host.place;
	}
	if (host.interpreter)
		interpret(s, &j, host.interpreter, script);
	snprintf(memory, sizeof(memory), "%llu", (unsigned long long)m->memory_bytes);
	snprintf(results, sizeof(results), "%llu", (unsigned long long)m->result_bytes);
	identity_args(s, free_child(s), uid);
	memcpy(j.target, target, sizeof(target));
	start(s, &j);
}

/* In a child of its own, which answers by itself: a kernel may take its time over some of what is tried. */
static void probe(struct spawner *s)
{
	struct pb_msg_probed m = {.report = {NULL, 0}};
	pid_t pid = fork();
	char *text;

	if (pid > 0)
		return;
	if (pid < 0) {
		(void)!pb_send(s->sock, PB_MSG_probed, &m, NULL, 0, NULL);
		return;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	text = pb_confine_probe_text(s->root ? s->uid_base + CHILDREN_MAX : 0, true);
	if (text)
		m.report = (struct pb_bytes){(const uint8_t *)text, (uint32_t)strnlen(text, PROBE_BYTES_MAX)};
	(void)!pb_send(s->sock, PB_MSG_probed, &m, NULL, 0, NULL);
	_exit(0);
}

static void reap(struct spawner *s)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0)
		for (int i = 0; i < CHILDREN_MAX; i++) {
			struct child *c = &s->child[i];
			struct pb_msg_exited m = {.id = c->id, .wait_status = status};

			if (c->pid != pid)
				continue;
			if (c == s->spare)
				drop_spare(s);
			m.oom_kills = pb_cgroup_oom_kills(c->cgroup);
			c->cgroup = pb_cgroup_free(c->cgroup);
			c->id = 0;
			c->pid = 0;
			if (m.id)
				(void)!pb_send(s->sock, PB_MSG_exited, &m, NULL, 0, NULL);
			if (c->again)
				make_spare(s);
		}
}

static void kill_child(struct spawner *s, uint64_t id)
{
	for (int i = 0; i < CHILDREN_MAX; i++)
		if (s->child[i].id == id && id != 0 && s->child[i].pid > 0)
			kill(s->child[i].pid, SIGKILL);
}

/* The broker is gone: nothing of it may be left. */
static _Noreturn void end_all(struct spawner *s)
{
	const struct timespec nap = {.tv_nsec = 1000000};
	struct stat now;
	int left = 0;

	for (int i = 0; i < CHILDREN_MAX; i++)
		if (s->child[i].pid) {
			kill(s->child[i].pid, SIGKILL);
			left++;
		}
	/* One that the kernel does not let die (it waits for a device) is left to it, and its group with it. */
	for (int waited = 0; left && waited < END_MS; waited++) {
		for (int i = 0; i < CHILDREN_MAX; i++)
			if (s->child[i].pid && waitpid(s->child[i].pid, NULL, __WALL | WNOHANG) != 0) {
				pb_cgroup_free(s->child[i].cgroup);
				s->child[i].pid = 0;
				left--;
			}
		if (left)
			nanosleep(&nap, NULL);
	}
	pb_cgroup_close();
	/* Another broker may have its own there by now. */
	if (s->unlink_path && lstat(s->unlink_path, &now) == 0 && now.st_dev == s->unlink_id.st_dev &&
	    now.st_ino == s->unlink_id.st_ino)
		unlink(s->unlink_path);
	_exit(0);
}

static void on_broker(struct spawner *s)
{
	pb_status st = pb_recv(s->sock, PB_BROKER, PB_SPAWNER, PB_STATE_ANY, false, &s->rx, NULL);

	if (st)
		end_all(s);
	switch ((enum pb_msg_id)s->rx.row->id) {
	case PB_MSG_spawn_intake:
		spawn_intake(s, &s->rx.msg.spawn_intake);
		break;
	case PB_MSG_spawn_warden:
		spawn_warden(s, &s->rx.msg.spawn_warden);
		break;
	case PB_MSG_spawn_ops:
		spawn_ops(s, &s->rx.msg.spawn_ops);
		break;
	case PB_MSG_spawn_constants:
		spawn_constants(s, &s->rx.msg.spawn_constants);
		break;
	case PB_MSG_spawn_compare:
		spawn_compare(s, &s->rx.msg.spawn_compare);
		break;
	case PB_MSG_spawn_probe:
		probe(s);
		break;
	case PB_MSG_spawn_kill:
		kill_child(s, s->rx.msg.spawn_kill.id);
		break;
	default:
		break;
	}
	pb_fds_close(&s->rx.fds);
}

static void report_layers(struct spawner *s)
{
	char *text = pb_confine_report_text();
	struct pb_msg_spawner_layers m = {.report = {(const uint8_t *)text, text ? (uint32_t)strlen(text) : 0},
					   .shares_cpu = pb_cgroup_shares_cpu()};

	(void)!pb_send(s->sock, PB_MSG_spawner_layers, &m, NULL, 0, NULL);
	free(text);
}

static _Noreturn void spawner_main(struct spawner *s)
{
	struct signalfd_siginfo si;
	struct pt2box_error e = {.status = PT2BOX_OK};
	sigset_t set;

	prctl(PR_SET_PDEATHSIG, 0);
	signal(SIGINT, SIG_IGN); /* the broker decides when to go */
	signal(SIGTERM, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	s->sigfd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	s->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	s->root = pb_confine_has_rights();
	s->uid_base = 0x60000000u + ((uint32_t)getpid() & 0xffff) * 4096; /* CHILDREN_MAX fit */
	if (pb_confine_spawner(&e)) {
		reply_failed(s, 0, &e);
		end_all(s); /* control groups and the socket's name are there already */
	}
	report_layers(s);
	for (;;) {
		struct pollfd p[2] = {{.fd = s->sock, .events = POLLIN}, {.fd = s->sigfd, .events = POLLIN}};

		int n = poll(p, 2, s->spare ? SPARE_IDLE_MS : -1);

		if (n < 0 && errno != EINTR)
			end_all(s);
		if (n == 0)
			drop_spare(s); /* nobody needs it */
		if (p[1].revents) {
			(void)!read(s->sigfd, &si, sizeof(si));
			reap(s);
		}
		if (p[0].revents)
			on_broker(s);
	}
}

pb_status pb_spawner_start(const struct pb_config *config, const char *unlink_path, int *ret_sock, pid_t *ret_pid,
			   struct pt2box_error *err)
{
	static struct spawner s;
	int p[2];
	pid_t pid;
	pb_status st = pb_socket_pair(p, err);

	if (st)
		return st;
	pid = fork();
	if (pid < 0) {
		close(p[0]);
		close(p[1]);
		return pb_error_sys(err, "fork");
	}
	if (pid == 0) {
		/* Only its socket and stderr; listeners and clients come later and are the broker's. */
		s.sock = dup3(p[1], 3, O_CLOEXEC) < 0 ? p[1] : 3;
		if (s.sock == 3)
			close_range(4, ~0u, 0);
		s.libexec = config->libexec;
		s.torch = config->torch.path;
		s.python = config->python.path;
		s.unlink_path = unlink_path && lstat(unlink_path, &s.unlink_id) == 0 ? unlink_path : NULL;
		spawner_main(&s);
	}
	close(p[1]);
	*ret_sock = p[0];
	*ret_pid = pid;
	return PT2BOX_OK;
}
