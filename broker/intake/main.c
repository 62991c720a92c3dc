/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pt2box-intake: does one job on hostile bytes and ends: reads a package, makes new constants for a loaded one, or compares
 * two memories. The spawner gave it numbered descriptors and nothing else; it confines itself before it touches any of them.
 */
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <msgpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "broker/intake/intake.h"
#include "broker/intake/spare.h"
#include "broker/intake/update.h"
#include "confine/confine.h"
#include "ipc/fdmap.h"

/* Private memory: texts of the package and what libraries make of them. The outputs are shared memory, not counted. */
#define MEMORY_BYTES (512ull << 20)

#define UPDATE_NICE 10

enum job { JOB_PACKAGE, JOB_CONSTANTS, JOB_COMPARE };

struct options {
	enum job job;
	struct pb_intake intake;
	struct pb_update update;
	struct pb_confine_spec confine;
};

static bool number(const char *s, uint64_t max, uint64_t *ret)
{
	char *end;

	if (*s < '0' || *s > '9')
		return false;
	*ret = strtoull(s, &end, 10);
	return *end == '\0' && *ret <= max;
}

static bool parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{"model", required_argument, NULL, 'm'}, {"max-package-bytes", required_argument, NULL, 'b'},
		{"uid", required_argument, NULL, 'u'},	 {"gid", required_argument, NULL, 'g'},
		{"inspect", no_argument, NULL, 'i'},	 {"brief", no_argument, NULL, 't'},
		{"constants", no_argument, NULL, 'c'},	 {"max-bytes", required_argument, NULL, 'x'},
		{"base-offset", required_argument, NULL, 'o'}, {"parameters-offset", required_argument, NULL, 'p'},
		{"full", no_argument, NULL, 'f'},	 {"names", no_argument, NULL, 'n'},
		{"compare", no_argument, NULL, 'd'},	 {NULL, 0, NULL, 0}};
	uint64_t v;
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (c == 'm')
			o->intake.model = optarg;
		else if (c == 'i')
			o->intake.inspect = true;
		else if (c == 't')
			o->intake.brief = o->intake.inspect = true;
		else if (c == 'c')
			o->job = JOB_CONSTANTS;
		else if (c == 'd')
			o->job = JOB_COMPARE;
		else if (c == 'f')
			o->update.full = true;
		else if (c == 'n')
			o->update.names = true;
		else if (c == 'x' && number(optarg, INT64_MAX, &v))
			o->update.max_bytes = v;
		else if (c == 'o' && number(optarg, INT64_MAX, &v))
			o->update.base.offset = v;
		else if (c == 'p' && number(optarg, INT64_MAX, &v))
			o->update.parameters.offset = v;
		else if (c == 'b' && number(optarg, INT64_MAX, &v))
			o->intake.max_package_bytes = v;
		else if (c == 'u' && number(optarg, UINT32_MAX, &v))
			o->confine.uid = (uint32_t)v;
		else if (c == 'g' && number(optarg, UINT32_MAX, &v))
			o->confine.gid = (uint32_t)v;
		else
			return false;
	}
	if (o->job == JOB_PACKAGE && (!o->intake.model || !o->intake.max_package_bytes))
		return false;
	return optind == argc && (o->job != JOB_CONSTANTS || o->update.max_bytes);
}

/* [status, text]: the sentence of a failure; of a success the digest of the constants' memory, if there is one. */
static void report(pb_status st, const char *text)
{
	char safe[sizeof(((struct pt2box_error *)0)->text)];
	msgpack_sbuffer buf;
	msgpack_packer pk;

	pb_text_escape(safe, sizeof(safe), text, strlen(text));
	msgpack_sbuffer_init(&buf);
	msgpack_packer_init(&pk, &buf, msgpack_sbuffer_write);
	msgpack_pack_array(&pk, 2);
	msgpack_pack_uint32(&pk, st);
	msgpack_pack_str(&pk, strlen(safe));
	msgpack_pack_str_body(&pk, safe, strlen(safe));
	(void)!write(PB_FD_RESULT, buf.data, buf.size);
	msgpack_sbuffer_destroy(&buf);
}

static pb_status run(struct options *o, char digest[PB_DIGEST_TEXT], struct pt2box_error *err)
{
	switch (o->job) {
	case JOB_PACKAGE:
		if (fcntl(PB_FD_CONSTANTS_FILE, F_GETFD) >= 0)
			o->intake.constants_in = PB_FD_CONSTANTS_FILE;
		return pb_intake_run(&o->intake, digest, err);
	case JOB_CONSTANTS:
		return pb_update_run(&o->update, digest, err);
	case JOB_COMPARE:
		return pb_compare_run(PB_FD_IN_ONE, PB_FD_IN_OTHER, err);
	}
	return pb_error_set(err, PT2BOX_INTERNAL, "no job");
}

int main(int argc, char **argv)
{
	struct options o = {.intake = {.package = PB_FD_PACKAGE,
				       .constants_in = -1,
				       .out_model = PB_FD_OUT_MODEL,
				       .out_constants = PB_FD_OUT_CONSTANTS,
				       .out_manifest = PB_FD_OUT_MANIFEST},
			    .update = {.manifest = PB_FD_IN_MANIFEST,
				       .file = PB_FD_IN_FILE,
				       .out = PB_FD_IN_OUT,
				       .base = {.fd = PB_FD_IN_BASE},
				       .parameters = {.fd = PB_FD_IN_PARAMETERS}},
			    .confine = {.memory_bytes = MEMORY_BYTES, .threads = 1, .link_fd = -1}};
	struct pt2box_error e = {.status = PT2BOX_OK};
	char digest[PB_DIGEST_TEXT] = "";
	pb_status st;

	json_object_seed(0); /* takes its seed from a file, which cannot be opened later */
	if (argc == 2 && strcmp(argv[1], "--wait") == 0 && !pb_spare_wait(&argc, &argv))
		return 0;
	if (!parse(argc, argv, &o)) {
		fprintf(stderr, "pt2box-intake is started by pt2boxd\n");
		return PT2BOX_USAGE;
	}
	if (o.intake.model && !o.intake.model[0])
		o.intake.model = "model";
	/* The model goes on running meanwhile, perhaps on every CPU there is: its runs come first. */
	if (o.job == JOB_CONSTANTS)
		(void)setpriority(PRIO_PROCESS, 0, UPDATE_NICE);
	st = pb_confine_intake(&o.confine, &e);
	if (!st)
		st = run(&o, digest, &e);
	report(st, st ? e.text : digest);
	return 0;
}
