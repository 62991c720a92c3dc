/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pt2box-worker: started by the spawner as pid 1 of a new namespace, with numbered descriptors and an empty environment.
 *
 *	take fds -> fork the template -> (warden) answer it and reap
 *	                             `-> (template) load trusted libraries -> sandbox on -> dlopen the model -> fork workers
 */
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "confine/confine.h"
#include "confine/test_layers.h"
#include "ipc/fdmap.h"
#include "ipc/socket.h"
#include "worker/roles.h"

static const struct option long_options[] = {
	{"backend", required_argument, NULL, 'b'}, {"profile", required_argument, NULL, 'p'},
	{"runtime", required_argument, NULL, 'R'}, {"threads", required_argument, NULL, 't'},
	{"tasks", required_argument, NULL, 'T'},   {"memory", required_argument, NULL, 'm'},
	{"explain", no_argument, NULL, 'e'},	   {"uid", required_argument, NULL, 'u'},
	{"gid", required_argument, NULL, 'g'},	   {"change-seq", required_argument, NULL, 'c'},
	{"lapack", no_argument, NULL, 'L'},	   {"ops", no_argument, NULL, 'o'},
	{NULL, 0, NULL, 0},
};

static bool parse(int argc, char **argv, struct pb_worker_options *o)
{
	int c;

	*o = (struct pb_worker_options){.backend = "native", .profile = "default", .threads = 1};
	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (c) {
		case 'b':
			o->backend = optarg;
			break;
		case 'p':
			o->profile = optarg;
			break;
		case 'R':
			o->runtime = optarg;
			break;
		case 't':
			o->threads = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 'T':
			o->tasks = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 'm':
			o->memory_bytes = strtoull(optarg, NULL, 10);
			break;
		case 'c':
			o->change_seq = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 'e':
			o->explain = true;
			break;
		case 'o':
			o->ops = true;
			break;
		case 'L':
			o->lapack = true;
			break;
		case 'u':
			o->uid = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 'g':
			o->gid = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		default:
			return false;
		}
	}
	return o->runtime != NULL;
}

/* Both ends of the link between template and warden, at their numbers. */
static bool make_link(void)
{
	int p[2];

	return pb_socket_pair(p, NULL) == PT2BOX_OK && pb_fd_move(p[0], PB_FD_LINK_PEER) &&
	       pb_fd_move(p[1], PB_FD_WARDEN_LINK);
}

struct pb_confine_spec pb_worker_confinement(const struct pb_worker_options *o, uint32_t team)
{
	return (struct pb_confine_spec){.uid = o->uid,
					.gid = o->gid,
					.memory_bytes = o->memory_bytes,
					.threads = team,
					.tasks = o->tasks,
					.strict = strcmp(o->profile, "strict") == 0,
					.torch = strcmp(o->backend, "torch") == 0,
					.explain = o->explain,
					.link_fd = PB_FD_WARDEN_LINK};
}

static bool only_our_fds(void)
{
	static const int fds[] = {0, 1, PB_FD_STDERR, PB_FD_TEMPLATE_CTL, PB_FD_WARDEN_CTL, PB_FD_MODEL,
				  PB_FD_CONSTANTS, PB_FD_MANIFEST, PB_FD_BOARD};
	struct pt2box_error e;

	if (pb_confine_fds(fds, sizeof(fds) / sizeof(fds[0]), &e) == PT2BOX_OK)
		return true;
	fprintf(stderr, "%s\n", e.text);
	return false;
}

int main(int argc, char **argv)
{
	struct pb_worker_options o;
	sigset_t chld;
	pid_t pid;

	if (!parse(argc, argv, &o) || (getpid() != 1 && !pb_test_layer_off("pid"))) {
		fprintf(stderr, "pt2box-worker: is started by pt2boxd, not by hand\n");
		return 2;
	}
	if (!only_our_fds() || !make_link())
		return 1;
	pb_confine_first();
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, NULL);
	pid = fork();
	if (pid < 0)
		return 1;
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		sigprocmask(SIG_UNBLOCK, &chld, NULL);
		close(PB_FD_WARDEN_CTL);
		close(PB_FD_LINK_PEER);
		pb_template_run(&o);
	}
	close(PB_FD_TEMPLATE_CTL);
	close(PB_FD_WARDEN_LINK);
	close(PB_FD_CONSTANTS);
	close(PB_FD_MANIFEST);
	close(PB_FD_BOARD);
	return pb_warden_run(&o, pid);
}
