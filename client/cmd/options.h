/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verbs and options of the command: one table, from which the parser, --help of every verb and a test of the manual page
 * are made.
 */
#ifndef PT2BOX_CMD_OPTIONS_H
#define PT2BOX_CMD_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "ipc/status.h"

enum cmd_verb { CMD_RUN, CMD_INSPECT, CMD_BENCH, CMD_BATCH, CMD_SERVE, CMD_DOCTOR, CMD_PS, CMD_TOP, CMD_METRICS, CMD_N_VERBS };

#define CMD_INPUTS_MAX 4096
#define CMD_REPO "repo:" /* in the place of a path: a model that the broker offers by name */

struct cmd_options {
	bool help;
	const char *package; /* all text is borrowed from argv or the environment */
	const char **inputs; /* malloc'd */
	size_t n_inputs;
	const char *output, *name, *backend, *profile, *constants, *ops, *socket, *shard, *isolate;
	bool single_threaded, explain, json, metadata, resume;
	uint32_t runners, threads, retries, repeat, clients, batch_size, max_failures;
	uint32_t runs; /* 0: as many as say something */
	int32_t device;
	int64_t deadline_ms, load_deadline_ms;
	int64_t seed; /* -1: none */
	uint64_t memory_bytes;
};

/* CMD_N_VERBS if there is no such verb. */
enum cmd_verb cmd_verb_find(const char *name);
const char *cmd_verb_name(enum cmd_verb v);
/*
 * argv[0] is the verb. Errors: USAGE; then, and otherwise, cmd_options_deinit(). If --help is there, help is set and
 * nothing else matters.
 */
PB_CHECK pb_status cmd_options_parse(enum cmd_verb v, int argc, char **argv, struct cmd_options *ret,
				     struct pt2box_error *err);
void cmd_options_deinit(struct cmd_options *o);

/* The text of `pt2box --help` and `pt2box VERB --help`. */
void cmd_help(FILE *f);
void cmd_verb_help(FILE *f, enum cmd_verb v);

/* One option, for tests: name, and the verbs that take it as a set of bits. NULL: there are no more. */
const char *cmd_option_name(size_t i, uint32_t *ret_verbs);

#endif
