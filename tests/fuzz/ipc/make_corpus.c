/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes the seeds of ipc's corpora: every message at its least and greatest, lanes' payloads, manifests, and bombs.
 *
 *	make build/tests/fuzz/ipc/make_corpus && build/tests/fuzz/ipc/make_corpus tests/fuzz/ipc
 */
#include <stdlib.h>
#include <sys/stat.h>

#include "ipc/ops_call.h"
#include "tests/unit/ipc/samples.h"

static const char *folder;

static void put(const char *corpus, const char *name, const void *head, size_t head_len, const void *data, size_t len)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/corpus_%s", folder, corpus);
	(void)mkdir(path, 0777);
	snprintf(path, sizeof(path), "%s/corpus_%s/%s", folder, corpus, name);
	f = fopen(path, "wb");
	if (!f || fwrite(head, 1, head_len, f) != head_len || fwrite(data, 1, len, f) != len || fclose(f)) {
		perror(path);
		exit(1);
	}
}

static void put_messages(void)
{
	static uint8_t frame[PB_FRAME_MAX];
	size_t n, len;
	const struct pb_msg_row *rows = pb_msg_rows(&n);

	for (size_t i = 0; i < n; i++)
		for (int kind = 0; kind < SAMPLE_KINDS; kind++) {
			static const char *const kinds[] = {"min", "max", "some"};
			const uint8_t head[2] = {(uint8_t)i, rows[i].min_fds};
			union pb_msg m;
			char name[80];

			sample_message(&rows[i], (enum sample_kind)kind, &m);
			if (pb_msg_encode(&rows[i], &m, frame, sizeof(frame), &len) || len > 2048)
				continue;
			snprintf(name, sizeof(name), "%s-%s", rows[i].name, kinds[kind]);
			put("messages", name, head, sizeof(head), frame, len);
		}
	for (int i = 0; i < 31; i++)
		memcpy(frame + 5 * i, "\xdd\x01\x00\x00\x00", 5);
	put("messages", "bomb", "\0", 2, frame, 155);
}

static void put_nodes(void)
{
	struct sample_nodes s;
	uint8_t *data;
	size_t n;

	sample_nodes(&s);
	if (pb_nodes_encode(&s.nodes, &data, &n, NULL))
		exit(1);
	put("nodes", "some", "", 0, data, n);
	free(data);
	put("nodes", "bomb", "", 0, "\xdd\x00\x00\xff\xff\xdd\x00\x00\x01\x00", 10);
}

static void put_lanes(void)
{
	static uint8_t buf[65536];
	struct sample_lane s;

	sample_lane(&s);
	put("lane_request", "some", "", 0, buf, pb_lane_encode_request(&s.request, buf, sizeof(buf)));
	put("lane_reply", "some", "", 0, buf, pb_lane_encode_reply(&s.reply, buf, sizeof(buf)));
	s.in[0].segment = s.in[1].segment = s.out[0].segment = 0; /* these lie in the target's memory */
	s.out[0].sizes[0] = 100;
	s.request.n_inputs = 2;
	s.reply.n_outputs = 1;
	s.reply.n_written = 0;
	put("lane_request", "inside", "", 0, buf, pb_lane_encode_request(&s.request, buf, sizeof(buf)));
	put("lane_reply", "inside", "", 0, buf, pb_lane_encode_reply(&s.reply, buf, sizeof(buf)));
	s.request.n_inputs = 0;
	s.reply.n_outputs = 0;
	s.reply.text[0] = '\0';
	put("lane_request", "none", "", 0, buf, pb_lane_encode_request(&s.request, buf, sizeof(buf)));
	put("lane_reply", "none", "", 0, buf, pb_lane_encode_reply(&s.reply, buf, sizeof(buf)));
	put("lane_request", "bomb", "", 0, "\x95\0\0\0\0\xdd\xff\xff\xff\xff", 10);
	put("lane_reply", "bomb", "", 0, "\x98\0\0\0\0\0\xa0\x90\xdd\xff\xff\xff\xff", 13);
}

static void put_ops_call(void)
{
	static uint8_t buf[PB_OPS_SLOT_BYTES];
	struct sample_lane s;
	int64_t ints[] = {0, -1, 1ll << 40};
	struct pb_ops_call c = {.node = 3, .n_ints = 3, .ints = ints, .request = &s.request};

	sample_lane(&s);
	put("ops_call", "some", "", 0, buf, pb_ops_encode_call(&c, buf, sizeof(buf)));
	c.n_ints = 0;
	s.request.n_inputs = 0;
	put("ops_call", "none", "", 0, buf, pb_ops_encode_call(&c, buf, sizeof(buf)));
	put("ops_call", "bomb", "", 0, "\x01\xdd\xff\xff\xff\xff", 6);
}

static void put_manifest(const char *name, const struct pb_manifest *m)
{
	struct pt2box_error err;
	uint8_t *data;
	size_t len;

	if (pb_manifest_encode(m, &data, &len, &err)) {
		fprintf(stderr, "%s: %s\n", name, err.text);
		exit(1);
	}
	put("manifest", name, "", 0, data, len);
	free(data);
}

int main(int argc, char **argv)
{
	struct sample_manifest s;

	if (argc != 2) {
		fprintf(stderr, "usage: make_corpus FOLDER\n");
		return 2;
	}
	folder = argv[1];
	put_messages();
	put_lanes();
	put_ops_call();
	put_nodes();
	sample_manifest(&s);
	put_manifest("some", &s.m);
	put_manifest("empty", &(struct pb_manifest){0});
	put("manifest", "bomb", "", 0, "\xdd\x00\x00\x00\x21\x02\xa0\xdd\x00\x00\xff\xff", 12);
	return 0;
}
