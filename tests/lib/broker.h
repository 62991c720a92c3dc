/* SPDX-License-Identifier: Apache-2.0 */
/* A broker for a test: started in a temporary folder, ended by pid, and everything of it looked for afterwards. */
#ifndef TESTS_LIB_BROKER_H
#define TESTS_LIB_BROKER_H

#include <stdbool.h>
#include <sys/types.h>

struct test_broker {
	pid_t pid;
	char dir[64];	  /* ours; holds the socket, the log, whatever the test puts there */
	char socket[96];
	char log[96];
	char config[96]; /* "": none */
};

/* The folder of the build: $B, else "build". */
const char *test_build_dir(void);
/*
 * Start @libexec/pt2boxd. This process becomes the reaper of all that descends from it, so that stop can tell whether
 * something was left. Returns 0, or -1 with a line on stderr.
 */
int test_broker_start(struct test_broker *b, const char *libexec);
/* The same with a configuration: its text. */
int test_broker_start_configured(struct test_broker *b, const char *libexec, const char *config);
/* SIGTERM, then wait; returns how many things were left: processes, the socket, shared memory, control groups. */
int test_broker_stop(struct test_broker *b);
/* It is the same process as at the start, alive. */
bool test_broker_alive(const struct test_broker *b);
/* Open descriptors of the broker; -1: not readable from here (it is not dumpable: only root may look). */
int test_broker_fds(const struct test_broker *b);
/* Resident memory in KiB, -1 if unknown. */
long test_broker_rss_kib(const struct test_broker *b);
/* What the broker and all of its processes hold. -1 where this user cannot count it. */
struct test_resources {
	int fds;       /* the broker's */
	int processes; /* that descend from it */
	int groups;    /* control groups */
	int shm;       /* names in /dev/shm that are ours */
};
/* "/pt2box-NUMBER/": what the paths of all its control groups have in them. */
void test_broker_group_name(const struct test_broker *b, char ret[40]);
void test_broker_resources(const struct test_broker *b, struct test_resources *ret);
/* Wait up to @ms until there is no more of anything than @base; NULL, or what is more. */
const char *test_broker_back_to(const struct test_broker *b, const struct test_resources *base, long ms);
/* Remove a folder with all that is in it. */
void test_remove_tree(const char *path);

/* Where things are. */
struct test_paths {
	char programs[256]; /* build/libexec, or a copy */
	char models[256];   /* build/tests/hostile, or a copy */
	char honest[256];   /* folder of a fixture with a known output */
};
void test_paths_init(struct test_paths *p);
/* Root only: call @run in a child that is an ordinary user, with @p pointing to copies that it can read. 0: all well. */
int test_as_ordinary_user(struct test_paths *p, int (*run)(void));

/* Milliseconds of CLOCK_MONOTONIC. */
long test_now_ms(void);

#endif
