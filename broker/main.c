/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pt2boxd, the broker: options and configuration -> listen -> spawner -> files of the repository -> drop privileges ->
 * sandbox on -> loop -> tear down.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "broker/broker.h"
#include "confine/confine.h"

/* Who the broker is once it has dropped root: nobody else on the system. */
#define BROKER_UID 0x5ffffff0u
#define TEAR_DOWN_MS 10000

static const char usage[] =
	"usage: pt2boxd [--config FILE] [--socket PATH] [options]\n"
	"Runs PyTorch AOTInductor packages for clients of a Unix socket, in confined processes.\n\n"
	"  --config FILE        tenants, their limits, models offered by name; options here go before it\n"
	"  --check-config       say what the file means and end: exit status 2 if it is wrong\n"
	"  --socket PATH        where to listen (default $PT2BOX_SOCKET, else /run/pt2box.sock as root,\n"
	"                       else pt2box.sock in $XDG_RUNTIME_DIR or /run/user/UID)\n"
	"  --load-deadline MS   for loading a package (default 60000)\n"
	"  --run-deadline MS    for one run (default 60000; -1: none)\n"
	"  --op-deadline MS     for one call of a plugin's operator (default 10000)\n"
	"  --memory BYTES       limit of each worker (default 8 GiB); clients may ask for less\n"
	"  --audit FILE         append to it who loads what, and what dies or is killed, as lines of JSON\n"
	"  --verbose            say what happens on stderr\n"
	"  --help, --version\n";

static const struct option long_options[] = {
	{"config", required_argument, NULL, 'c'},	 {"check-config", no_argument, NULL, 'C'},
	{"socket", required_argument, NULL, 's'},	 {"embedded-fd", required_argument, NULL, 'e'},
	{"load-deadline", required_argument, NULL, 'l'}, {"run-deadline", required_argument, NULL, 'r'},
	{"op-deadline", required_argument, NULL, 'o'},	 {"memory", required_argument, NULL, 'm'},
	{"audit", required_argument, NULL, 'a'},	 {"verbose", no_argument, NULL, 'v'},
	{"help", no_argument, NULL, 'h'},		 {"version", no_argument, NULL, 'V'},
	{NULL, 0, NULL, 0},
};

/* An embedded broker says why to its client; there may be nobody at a terminal. */
static _Noreturn void die(const struct pb_config *c, const struct pt2box_error *e)
{
	struct pb_msg_failed m = {.status = e->status, .sys_errno = e->sys_errno};

	snprintf(m.text, sizeof(m.text), "%s", e->text);
	if (c->embedded_fd < 0 || pb_send(c->embedded_fd, PB_MSG_failed, &m, NULL, 0, NULL))
		fprintf(stderr, "pt2boxd: %s: %s\n", pt2box_status_name(e->status), e->text);
	exit((int)e->status);
}

static _Noreturn void bad_usage(const char *what)
{
	fprintf(stderr, "pt2boxd: USAGE: %s: see pt2boxd --help\n", what);
	exit(PT2BOX_USAGE);
}

static int64_t number(const char *text, int64_t min)
{
	char *end;
	long long v;

	errno = 0;
	v = strtoll(text, &end, 10);
	if (errno || end == text || *end || v < min)
		bad_usage("not a number that can be used here");
	return v;
}

/* The configuration comes first, wherever it is named, so that options override it. */
static void configure(int argc, char **argv, struct pb_config *c)
{
	struct pt2box_error e = {.status = PT2BOX_OK};
	struct pb_service_conf *s = NULL;
	const char *path = NULL;
	bool check = false;
	int o;

	while ((o = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (o == 'c')
			path = optarg;
		check |= o == 'C';
		if (o == '?')
			exit(PT2BOX_USAGE);
	}
	optind = 0; /* also resets what getopt has in mind */
	if (check && !path)
		bad_usage("--check-config needs --config FILE");
	if (path && pb_config_read(path, &s, &e))
		die(c, &e);
	if (check) {
		pb_config_print(stdout, s);
		pb_config_free(s);
		exit(0);
	}
	if (!s)
		return;
	c->service = s;
	c->socket_path = s->socket;
	c->audit_path = s->audit;
	c->verbose = s->verbose;
	if (s->load_deadline_ms)
		c->load_deadline_ms = s->load_deadline_ms;
	if (s->run_deadline_ms)
		c->run_deadline_ms = s->run_deadline_ms;
	if (s->op_deadline_ms)
		c->op_deadline_ms = s->op_deadline_ms;
	if (s->memory_bytes)
		c->memory_bytes = s->memory_bytes;
}

static void parse(int argc, char **argv, struct pb_config *c)
{
	int o;

	while ((o = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (o) {
		case 'c':
		case 'C':
			break; /* configure() */
		case 's':
			c->socket_path = optarg;
			break;
		case 'e':
			c->embedded_fd = (int)number(optarg, 3);
			break;
		case 'l':
			c->load_deadline_ms = number(optarg, 1);
			break;
		case 'r':
			c->run_deadline_ms = number(optarg, -1);
			break;
		case 'o':
			c->op_deadline_ms = number(optarg, 1);
			break;
		case 'm':
			c->memory_bytes = (uint64_t)number(optarg, 1 << 20);
			break;
		case 'a':
			c->audit_path = optarg;
			break;
		case 'v':
			c->verbose = true;
			break;
		case 'h':
			fputs(usage, stdout);
			exit(0);
		case 'V':
			puts("pt2boxd " PB_VERSION);
			exit(0);
		default:
			exit(PT2BOX_USAGE);
		}
	}
	if (optind != argc)
		bad_usage("an argument that is not an option");
	if (c->run_deadline_ms == 0)
		bad_usage("a run deadline of 0");
}

/* The folder that this program lies in holds the others. */
static const char *libexec_dir(void)
{
	static char dir[4096];
	ssize_t n = readlink("/proc/self/exe", dir, sizeof(dir) - 1);
	char *slash;

	dir[n > 0 ? n : 0] = '\0';
	slash = strrchr(dir, '/');
	if (!slash)
		return PB_LIBEXEC_DIR;
	*slash = '\0';
	return dir;
}

/* Nothing is left to accept with: taken and closed, it does not wake us again and again. */
static void turn_away(struct pb_broker *b, int listener)
{
	pb_close_fd(&b->spare_fd);
	pb_close_fd(&(int){accept4(listener, NULL, NULL, SOCK_CLOEXEC)});
	b->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void on_connect(struct pb_broker *b, struct pb_source *s, uint32_t events)
{
	struct pt2box_error e;
	int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (fd < 0 && (errno == EMFILE || errno == ENFILE))
		turn_away(b, s->fd);
	if (fd >= 0 && pb_client_new(b, fd, &e))
		pb_log(b, "connection refused: %s", e.text);
}

static void on_signal(struct pb_broker *b, struct pb_source *s, uint32_t events)
{
	struct signalfd_siginfo si;

	(void)events;
	if (read(s->fd, &si, sizeof(si)) == sizeof(si) && si.ssi_signo != SIGCHLD)
		b->stop = true;
}

/* A line of a report of layers says that it is on. */
static bool is_on(const char *report, const char *layer)
{
	const size_t n = strlen(layer);

	for (const char *at = report; at && *at; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL)
		if (strncmp(at, layer, n) == 0 && strncmp(at + n, "\ton\t", 4) == 0)
			return true;
	return false;
}

/* The spawner has said what it has, and where that is asked what the machine has: models may run here, or nobody is let in. */
static void open_for_clients(struct pb_broker *b)
{
	const struct pb_service_conf *s = b->config.service;
	struct pb_msg_spawn_probe ask;
	struct pt2box_error e = {.status = PT2BOX_OK};

	if (b->listener.fd < 0 || b->listens)
		return;
	if (s && s->n_required && !b->probe) {
		if (!b->probing && pb_send(b->spawner.fd, PB_MSG_spawn_probe, &ask, NULL, 0, &e))
			die(&b->config, &e);
		b->probing = true;
		return;
	}
	for (size_t i = 0; s && i < s->n_required; i++)
		if (!is_on(b->spawner_layers, s->required[i]) && !is_on(b->probe, s->required[i])) {
			pb_error_set(&e, PT2BOX_LAYER_MISSING, "the configuration requires \"%s\", which cannot be had here",
				     s->required[i]);
			die(&b->config, &e);
		}
	if (pb_loop_add(b, &b->listener, &e))
		die(&b->config, &e);
	b->listens = true;
	pb_repo_preload(b);
}

static void on_spawner(struct pb_broker *b, struct pb_source *s, uint32_t events)
{
	union pb_msg *m = &b->rx.msg;
	pb_status st = pb_recv(s->fd, PB_SPAWNER, PB_BROKER, PB_STATE_ANY, true, &b->rx, NULL);

	(void)events;
	if (st == PT2BOX_NOT_FOUND)
		return;
	if (st) {
		fprintf(stderr, "pt2boxd: the spawner is gone\n");
		b->stop = true;
		return;
	}
	switch ((enum pb_msg_id)b->rx.row->id) {
	case PB_MSG_spawned:
		pb_model_spawned(b, &m->spawned, pb_fds_take(&b->rx.fds, 0));
		break;
	case PB_MSG_exited:
		pb_model_exited(b, &m->exited);
		break;
	case PB_MSG_spawn_failed:
		if (m->spawn_failed.id == 0) {
			struct pt2box_error e;

			pb_error_set(&e, (pb_status)m->spawn_failed.status, "%s", m->spawn_failed.text);
			die(&b->config, &e);
		}
		pb_model_spawn_failed(b, &m->spawn_failed);
		break;
	case PB_MSG_probed:
		pb_report_probed(b, &m->probed);
		open_for_clients(b);
		break;
	case PB_MSG_spawner_layers:
		free(b->spawner_layers);
		b->spawner_layers = strndup((const char *)m->spawner_layers.report.data, m->spawner_layers.report.len);
		b->shares_cpu = m->spawner_layers.shares_cpu;
		open_for_clients(b);
		break;
	default:
		break;
	}
}

/* Descriptors are what a broker has most of. */
static uint32_t raise_files(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	if (getrlimit(RLIMIT_NOFILE, &files) != 0)
		return 1024;
	return files.rlim_cur < INT32_MAX ? (uint32_t)files.rlim_cur : INT32_MAX;
}

static pb_status watch_signals(struct pb_broker *b, struct pt2box_error *err)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a log that may not grow */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	b->signals = (struct pb_source){.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), .ready = on_signal, .object = NULL};
	if (b->signals.fd < 0)
		return pb_error_sys(err, "signalfd");
	return pb_loop_add(b, &b->signals, err);
}

static void on_parent(struct pb_broker *b, struct pb_source *s, uint32_t events)
{
	(void)s;
	(void)events;
	b->stop = true;
}

/*
 * The process that made the embedded socket. A child that it forked may hold the other end open for longer than it
 * lives, so the end of the socket is not enough.
 */
static pb_status watch_parent(struct pb_broker *b, struct pt2box_error *err)
{
	int fd;
	pid_t pid;

	assert(b->clients); /* the embedded one was added just before */
	pid = b->clients->pid;
	/* The kernel's own answer where it has one: a number may be another process's meanwhile. */
	fd = b->clients->pidfd >= 0 ? fcntl(b->clients->pidfd, F_DUPFD_CLOEXEC, 3) : (int)syscall(SYS_pidfd_open, pid, 0);
	b->parent = (struct pb_source){.fd = fd, .ready = on_parent, .object = NULL};
	if (b->parent.fd < 0 && errno == ESRCH)
		return pb_error_set(err, PT2BOX_BROKER_LOST, "process %d, which wanted a broker, is gone", pid);
	return b->parent.fd < 0 ? PT2BOX_OK : pb_loop_add(b, &b->parent, err);
}

/* Whom it listens to: the socket of the process that started it, or a listener, its own or one that it was given. */
static pb_status add_clients(struct pb_broker *b, int listener, struct pt2box_error *err)
{
	pb_status st;

	if (b->config.embedded_fd >= 0) {
		fcntl(b->config.embedded_fd, F_SETFD, FD_CLOEXEC);
		fcntl(b->config.embedded_fd, F_SETFL, O_NONBLOCK);
		st = pb_client_new(b, b->config.embedded_fd, err);
		return st ? st : watch_parent(b, err);
	}
	b->listener = (struct pb_source){.fd = listener, .ready = on_connect, .object = NULL}; /* in the loop when the spawner is there */
	return PT2BOX_OK;
}

/* What needs rights, and their end. */
static pb_status start_with_rights(struct pb_broker *b, int *ret_listener, int *ret_spawner, struct pt2box_error *err)
{
	const struct pb_service_conf *s = b->config.service;
	const bool embedded = b->config.embedded_fd >= 0;
	pb_status st = embedded ? PT2BOX_OK : pb_listen_inherited(ret_listener, err);
	const bool inherited = *ret_listener >= 0;
	static char place[108];

	b->started_by = getuid();
	b->cpus = sysconf(_SC_NPROCESSORS_ONLN) > 0 ? (uint32_t)sysconf(_SC_NPROCESSORS_ONLN) : 1;
	/* As root anybody may connect, unless it is configured: what they may do is decided by who they are. */
	if (!st && !embedded && !inherited && !b->config.socket_path) {
		st = pb_default_socket(place, err);
		b->config.socket_path = place;
	}
	if (!st && !embedded && !inherited)
		st = pb_listen(b->config.socket_path, s ? s->mode : geteuid() == 0 ? 0666 : 0600, s ? s->group : NULL,
			       ret_listener, err);
	/* The spawner keeps the right to take the socket's name away again, if we made it. */
	if (!st)
		st = pb_spawner_start(&b->config, embedded || inherited ? NULL : b->config.socket_path, ret_spawner,
				      &b->spawner_pid, err);
	b->listener_name = inherited ? "the socket that it was given" : b->config.socket_path;
	b->files_max = raise_files();
	if (!st)
		st = pb_audit_open(b, err); /* after the fork: the spawner has no part in it */
	if (!st)
		st = pb_tenants_begin(b, err);
	if (!st)
		st = pb_repo_open(b, err);
	b->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (!st)
		st = pb_memfd_from("pt2box-empty", "", 0, &b->empty_fd, err);
	return st ? st : pb_confine_broker(BROKER_UID, err);
}

static pb_status start(struct pb_broker *b, struct pt2box_error *err)
{
	int fd = -1, sock = -1;
	pb_status st;

	b->began_ns = pb_now_ns();
	b->config.libexec = libexec_dir();
	(void)pb_torch_find(&b->config.torch);
	(void)pb_python_find(&b->config.python);
	st = start_with_rights(b, &fd, &sock, err);
	if (st)
		return st;
	b->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (b->epoll < 0)
		return pb_error_sys(err, "epoll");
	/* It answers while we ask: two that block on each other's full sockets would do so for ever. */
	fcntl(sock, F_SETFL, O_NONBLOCK);
	b->spawner = (struct pb_source){.fd = sock, .ready = on_spawner, .object = NULL};
	st = pb_loop_add(b, &b->spawner, err);
	if (!st)
		st = watch_signals(b, err);
	if (st)
		return st;
	st = add_clients(b, fd, err);
	/* Last: from here on bytes of clients are read. */
	return st ? st : pb_confine_broker_closed(err);
}

/* The spawner kills all that it started when its socket closes, takes the listener's name away, and ends. */
static void tear_down(struct pb_broker *b)
{
	while (b->clients)
		pb_client_close(b, b->clients);
	pb_loop_remove(b, &b->spawner);
	/* A process that the kernel does not let die is left to it: nobody waits for ever. */
	for (int i = 0; i < TEAR_DOWN_MS && waitpid(b->spawner_pid, NULL, WNOHANG) == 0; i++)
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static void open_log(const struct pb_config *c)
{
	struct pt2box_error e;
	int fd = open(c->service->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0640);

	if (fd < 0 || dup2(fd, 2) < 0) {
		pb_error_sys(&e, "%s", c->service->log);
		die(c, &e);
	}
	close(fd);
}

int main(int argc, char **argv)
{
	static struct pb_broker b = {.config = {.embedded_fd = -1,
						.load_deadline_ms = 60000,
						.run_deadline_ms = 60000,
						.op_deadline_ms = 10000,
						.memory_bytes = 8ull << 30}};
	struct pt2box_error e = {.status = PT2BOX_OK};

	configure(argc, argv, &b.config);
	parse(argc, argv, &b.config);
	if (b.config.service && b.config.service->log)
		open_log(&b.config);
	b.listener.fd = b.spawner.fd = b.signals.fd = b.parent.fd = -1;
	if (start(&b, &e))
		die(&b.config, &e);
	if (b.config.embedded_fd < 0)
		fprintf(stderr, "pt2boxd: listening on %s\n", b.listener_name);
	pb_loop_run(&b);
	tear_down(&b);
	return 0;
}
