/* SPDX-License-Identifier: Apache-2.0 */
/* See cpu.h. */
#include "broker/intake/cpu.h"

#include <cpuid.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum reg { EAX, EBX, ECX, EDX };

/* State that the kernel must save for a feature to be usable: bits of XCR0. */
#define YMM 0x6u
#define ZMM 0xe6u
#define TILES 0x60000u

struct feature {
	const char *name; /* as in -mNAME */
	uint32_t leaf, sub;
	enum reg reg;
	uint8_t bit;
	uint32_t state;
};

static const struct feature features[] = { /* by leaf */
	{"sse3", 1, 0, ECX, 0, 0},
	{"ssse3", 1, 0, ECX, 9, 0},
	{"sse4.1", 1, 0, ECX, 19, 0},
	{"sse4.2", 1, 0, ECX, 20, 0},
	{"popcnt", 1, 0, ECX, 23, 0},
	{"movbe", 1, 0, ECX, 22, 0},
	{"fma", 1, 0, ECX, 12, YMM},
	{"f16c", 1, 0, ECX, 29, YMM},
	{"avx", 1, 0, ECX, 28, YMM},
	{"avx2", 7, 0, EBX, 5, YMM},
	{"bmi", 7, 0, EBX, 3, 0},
	{"bmi2", 7, 0, EBX, 8, 0},
	{"avx512f", 7, 0, EBX, 16, ZMM},
	{"avx512dq", 7, 0, EBX, 17, ZMM},
	{"avx512cd", 7, 0, EBX, 28, ZMM},
	{"avx512bw", 7, 0, EBX, 30, ZMM},
	{"avx512vl", 7, 0, EBX, 31, ZMM},
	{"avx512ifma", 7, 0, EBX, 21, ZMM},
	{"avx512vbmi", 7, 0, ECX, 1, ZMM},
	{"avx512vbmi2", 7, 0, ECX, 6, ZMM},
	{"avx512vnni", 7, 0, ECX, 11, ZMM},
	{"avx512bitalg", 7, 0, ECX, 12, ZMM},
	{"avx512vpopcntdq", 7, 0, ECX, 14, ZMM},
	{"avx512fp16", 7, 0, EDX, 23, ZMM},
	{"gfni", 7, 0, ECX, 8, 0},
	{"vaes", 7, 0, ECX, 9, YMM},
	{"vpclmulqdq", 7, 0, ECX, 10, YMM},
	{"amx-tile", 7, 0, EDX, 24, TILES},
	{"amx-int8", 7, 0, EDX, 25, TILES},
	{"amx-bf16", 7, 0, EDX, 22, TILES},
	{"avx512bf16", 7, 1, EAX, 5, ZMM},
	{"avxvnni", 7, 1, EAX, 4, YMM},
	{"amx-fp16", 7, 1, EAX, 21, TILES},
	{"lzcnt", 0x80000001, 0, ECX, 5, 0},
};

#define N_FEATURES (sizeof(features) / sizeof(features[0]))

#define V2 "sse3 ssse3 sse4.1 sse4.2 popcnt"
#define V3 V2 " avx avx2 bmi bmi2 f16c fma lzcnt movbe"
#define V4 V3 " avx512f avx512bw avx512cd avx512dq avx512vl"

/* What a name stands for. */
struct group {
	const char *name, *members;
};

static const struct group marches[] = {
	{"x86-64-v2", V2},
	{"x86-64-v3", V3},
	{"x86-64-v4", V4},
	{"nehalem", V2},
	{"haswell", V3},
	{"broadwell", V3},
	{"skylake", V3},
	{"alderlake", V3 " avxvnni gfni vaes"},
	{"skylake-avx512", V4},
	{"cascadelake", V4 " avx512vnni"},
	{"cooperlake", V4 " avx512vnni avx512bf16"},
	{"icelake-client", V4 " avx512vnni avx512vbmi avx512vbmi2 avx512ifma avx512bitalg avx512vpopcntdq"},
	{"icelake-server", V4 " avx512vnni avx512vbmi avx512vbmi2 avx512ifma avx512bitalg avx512vpopcntdq"},
	{"sapphirerapids", V4 " avx512vnni avx512bf16 avx512fp16 avx512vbmi avx512vbmi2 amx-tile amx-int8 amx-bf16"},
	{"znver1", V3},
	{"znver2", V3},
	{"znver3", V3},
	{"znver4", V4 " avx512vnni avx512bf16 avx512vbmi avx512vbmi2 avx512ifma avx512bitalg avx512vpopcntdq"},
};

/* torch/_inductor/cpu_vec_isa.py: names of ISAs and the flags that go with them. */
static const struct group isas[] = {
	{"AVX2", "avx2 fma f16c"},
	{"AVX512", "avx512f avx512dq avx512vl avx512bw fma"},
	{"AVX512_VNNI", "avx512f avx512dq avx512vl avx512bw avx512vnni"},
	{"AVX512_BF16", "avx512f avx512dq avx512vl avx512bw avx512bf16"},
	{"AMX_TILE", "amx-tile amx-int8 amx-bf16"},
	{"AMX_FP16", "amx-tile amx-fp16"},
};

static const char *members(const struct group *g, size_t n, const char *s, size_t len)
{
	for (size_t i = 0; i < n; i++)
		if (strlen(g[i].name) == len && memcmp(g[i].name, s, len) == 0)
			return g[i].members;
	return NULL;
}

static void add_names(bool set[N_FEATURES], const char *s, size_t len)
{
	while (len) {
		size_t n = 0;

		while (n < len && s[n] != ' ')
			n++;
		for (size_t i = 0; i < N_FEATURES && n; i++)
			if (strlen(features[i].name) == n && memcmp(features[i].name, s, n) == 0)
				set[i] = true;
		s += n < len ? n + 1 : n;
		len -= n < len ? n + 1 : n;
	}
}

static void add_flag(bool set[N_FEATURES], const char *s, size_t len)
{
	const char *list;

	if (len > 7 && memcmp(s, "-march=", 7) == 0) {
		list = members(marches, sizeof(marches) / sizeof(marches[0]), s + 7, len - 7);
		if (list)
			add_names(set, list, strlen(list));
	} else if (len > 2 && s[0] == '-' && s[1] == 'm') {
		add_names(set, s + 2, len - 2);
	}
}

static void add_isa(bool set[N_FEATURES], const char *s, size_t len)
{
	const char *list = members(isas, sizeof(isas) / sizeof(isas[0]), s, len);

	if (list)
		add_names(set, list, strlen(list));
}

static void each_word(bool set[N_FEATURES], const char *s, void (*f)(bool *, const char *, size_t))
{
	while (*s) {
		size_t n = strcspn(s, " \t\r\n");

		if (n)
			f(set, s, n);
		s += n + (s[n] != '\0');
	}
}

void pb_cpu_needs(const char *isa, const char *command, bool tiles, char *dst, size_t cap)
{
	bool set[N_FEATURES] = {false};
	size_t used = 0;

	each_word(set, isa, add_isa);
	each_word(set, command, add_flag);
	dst[0] = '\0';
	for (size_t i = 0; i < N_FEATURES && used < cap; i++)
		if (set[i] && (tiles || features[i].state != TILES))
			used += (size_t)snprintf(dst + used, cap - used, "%s%s", used ? " " : "", features[i].name);
}

static uint32_t xcr0(void)
{
	uint32_t a, d;

	/* OSXSAVE was looked at by the caller. */
	__asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
	return a;
}

/* The last leaf that was read: in a virtual machine each CPUID costs some microseconds. */
struct leaf {
	uint32_t leaf, sub, reg[4];
	bool valid;
};

static bool has_feature(const struct feature *f, struct leaf *last)
{
	if (!last->valid || last->leaf != f->leaf || last->sub != f->sub) {
		*last = (struct leaf){.leaf = f->leaf, .sub = f->sub};
		last->valid = __get_cpuid_count(f->leaf, f->sub, &last->reg[EAX], &last->reg[EBX], &last->reg[ECX],
						&last->reg[EDX]);
	}
	return last->valid && (last->reg[f->reg] >> f->bit & 1);
}

pb_status pb_cpu_check(const char *needs, struct pt2box_error *err)
{
	static const struct feature osxsave = {"osxsave", 1, 0, ECX, 27, 0};
	bool set[N_FEATURES] = {false};
	struct leaf last = {.valid = false};
	uint32_t state = has_feature(&osxsave, &last) ? xcr0() : 0;
	char missing[200] = "";
	size_t used = 0;

	add_names(set, needs, strlen(needs));
	for (size_t i = 0; i < N_FEATURES; i++)
		if (set[i] && (!has_feature(&features[i], &last) || (features[i].state & ~state)) &&
		    used < sizeof(missing))
			used += (size_t)snprintf(missing + used, sizeof(missing) - used, "%s%s", used ? " " : "",
						 features[i].name);
	if (!used)
		return PT2BOX_OK;
	return pb_error_set(err, PT2BOX_UNSUPPORTED,
			    "the package is compiled for a CPU with %s, which this one lacks: compile it here, or with "
			    "cpp.march and cpp.simdlen set lower", missing);
}
