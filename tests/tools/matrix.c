/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attacks against programs from which one layer of the sandbox, or two, have been left out (confine/test_layers.h): which are
 * still stopped by another one, and which layer is the only one against what. Writes tests/matrix.def to standard output and
 * what it does to standard error. `make matrix`, as root.
 *
 *	matrix			everything
 *	matrix FIXTURE OFF	one attack with these layers off: how it ended
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/layered.h"

static const struct {
	const char *id, *fixture;
} attack[] = {
	{"M02", "ifunc"},	 {"M03", "needed"},	    {"M03", "rpath"},	     {"M03", "writable_code"},
	{"M06", "open_file"},	 {"M07", "socket_tcp"},	    {"M08", "socket_unix"},  {"M08", "connect_abstract"},
	{"M09", "execve"},	 {"M09", "fork_libc"},	    {"M09", "fork_exact"},   {"M10", "unshare"},
	{"M11", "ptrace"},	 {"M11", "process_vm"},	    {"M12", "kill_warden"},  {"M13", "kernel_doors"},
	{"M14", "int80"},	 {"M14", "x32"},	    {"M15", "high_bits"},    {"M16", "type_ahead"},
	{"M17", "mmap_exec"},	 {"M17", "run_written"},    {"M18", "store_embedded"}, {"M19", "protect_blob"},
	{"M20", "proc_self_mem"}, {"M21", "cut_lane"},	    {"M22", "memory_mmap"},  {"M23", "memfd"},
	{"M24", "thread_bomb"},	 {"M32", "send_fd"},	    {"M39", "sigaction"},    {"M41", "realtime"},
};
#define N_ATTACKS (sizeof(attack) / sizeof(attack[0]))

static const char *const off[] = {
	"", "filters", "run-filter", "gate", "root", "landlock", "network", "pid", "ids", "capabilities", "dumpable", "limits",
	"cgroups", "mdwe", "warden",
	"filters,root", "filters,landlock", "filters,root,landlock", "filters,network", "filters,network,landlock",
	"filters,dumpable", "filters,dumpable,landlock", "filters,capabilities", "filters,ids", "filters,limits",
	"filters,limits,cgroups", "limits,cgroups", "filters,mdwe", "filters,warden", "filters,gate",
};
#define N_OFF (sizeof(off) / sizeof(off[0]))

static char result[N_ATTACKS][N_OFF];
static struct test_layered world;

static bool has_name(const char *set, const char *name, size_t n)
{
	for (const char *at = set; *at; at += strcspn(at, ","), at += *at == ',')
		if (strcspn(at, ",") == n && strncmp(at, name, n) == 0)
			return true;
	return false;
}

/* Every layer of @small is in @big too, and not the other way round. */
static bool is_part(const char *small, const char *big)
{
	for (const char *at = small; *at; at += strcspn(at, ","), at += *at == ',')
		if (!has_name(big, at, strcspn(at, ",")))
			return false;
	return strlen(small) < strlen(big);
}

/* The least sets: that more layers missing do not stop it is no news. */
static void print_sets(size_t a)
{
	bool any = false;

	printf("MATRIX(\"%s\", \"%s\", \"", attack[a].id, attack[a].fixture);
	for (size_t o = 0; o < N_OFF; o++) {
		bool least = result[a][o] == 'T';

		for (size_t p = 0; p < N_OFF && least; p++)
			least = result[a][p] != 'T' || !is_part(off[p], off[o]);
		if (!least)
			continue;
		printf("%s%s", any ? "; " : "", off[o]);
		any = true;
	}
	printf("\")\n");
}

static int one(const char *fixture, const char *layers)
{
	struct pt2box_error e = {.status = PT2BOX_OK};
	enum pt2box_status st;

	if (!test_layered_begin(&world, layers))
		return 1;
	st = test_layered_attack(&world, fixture, &e);
	printf("%s without %s: %s: %s%s\n", fixture, layers, pt2box_status_name(st), st ? e.text : "",
	       test_got_through(fixture, st, &e) ? " THROUGH" : "");
	test_layered_end(&world);
	return 0;
}

int main(int argc, char **argv)
{
	int bad = 0, listener = test_listen_abstract();

	if (argc == 3)
		return one(argv[1], argv[2]);
	if (geteuid() != 0 || listener < 0) {
		fprintf(stderr, "matrix: needs root\n");
		return 1;
	}
	for (size_t o = 0; o < N_OFF; o++) {
		long began = test_now_ms();
		int through = 0;

		if (!test_layered_begin(&world, off[o]))
			return 1;
		for (size_t a = 0; a < N_ATTACKS; a++) {
			struct pt2box_error e = {.status = PT2BOX_OK};
			enum pt2box_status st = test_layered_attack(&world, attack[a].fixture, &e);

			result[a][o] = test_got_through(attack[a].fixture, st, &e) ? 'T' : '.';
			through += result[a][o] == 'T';
			if (!o && result[a][o] == 'T')
				bad++;
			if (st == PT2BOX_LAYER_MISSING || st == PT2BOX_INTERNAL || st == PT2BOX_BROKER_LOST) {
				fprintf(stderr, "matrix: %s without %s: %s: %s\n", attack[a].fixture, off[o],
					pt2box_status_name(st), e.text);
				bad++;
			}
		}
		test_layered_end(&world);
		fprintf(stderr, "matrix: without %-28s %2d of %zu through, %ld s\n", off[o][0] ? off[o] : "nothing", through,
			N_ATTACKS, (test_now_ms() - began) / 1000);
	}
	printf("/* SPDX-License-Identifier: Apache-2.0 */\n"
	       "/* Written by `make matrix`: the least sets of layers without which an attack gets what it wants; \"\": none of those tried. */\n");
	printf("#define TRIED \"");
	for (size_t o = 1; o < N_OFF; o++)
		printf("%s%s", o > 1 ? "; " : "", off[o]);
	printf("\"\n");
	for (size_t a = 0; a < N_ATTACKS; a++)
		print_sets(a);
	printf("#undef MATRIX\n");
	return bad != 0;
}
