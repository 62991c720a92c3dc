/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The library exports exactly what the table says is native, beside the hooks and the error text;
 * nothing of its own leaks into a model's scope. Looks into the file rather than loading it: $B is
 * the build folder.
 */
#include <elf.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum state { NATIVE, PROXIED, ABSENT };

struct row {
	const char *name;
	enum state state;
	const char *what, *note;
};

static const struct row rows[] = {
#define SHIM(name, state, what, note) {#name, state, what, note},
#include "runtime/shims.def"
#undef SHIM
};
#define N_ROWS (sizeof(rows) / sizeof(rows[0]))

static const char *const hooks[] = {
	"pb_rt_set_threads",
	"pb_rt_warmup",
	"pb_rt_add_constants",
	"pb_rt_forget_constants",
	"pb_rt_remove_constants",
	"pb_rt_run_begin",
	"pb_rt_run_end",
	"pb_rt_window_used",
	"pb_rt_last_error",
	"pb_rt_memory_refused",
	"pb_rt_set_memory_limit",
	"pb_rt_seed",
	"pb_rt_trim",
	"pb_rt_set_nodes",
	"pb_rt_set_error",
	"pb_rt_is_constant",
	"torch_exception_get_what_without_backtrace",
};
#define N_HOOKS (sizeof(hooks) / sizeof(hooks[0]))

static struct {
	const uint8_t *file;
	const Elf64_Sym *syms;
	size_t n_syms;
	const char *strings;
	const Elf64_Dyn *dynamic;
	size_t n_dynamic;
} lib;

static const Elf64_Shdr *section(uint32_t type, const uint8_t *file)
{
	const Elf64_Ehdr *eh = (const Elf64_Ehdr *)file;
	const Elf64_Shdr *sh = (const Elf64_Shdr *)(file + eh->e_shoff);

	for (int i = 0; i < eh->e_shnum; i++)
		if (sh[i].sh_type == type)
			return &sh[i];
	return NULL;
}

static int open_library(void **state)
{
	const char *build = getenv("B");
	const Elf64_Shdr *s, *d;
	char path[4096];
	struct stat sb;
	int fd;

	(void)state;
	snprintf(path, sizeof(path), "%s/libexec/libtorch_cpu.so",
		 build && *build ? build : "build");
	fd = open(path, O_RDONLY);
	if (fd < 0 || fstat(fd, &sb)) {
		print_error("cannot open %s: build it first\n", path);
		return -1;
	}
	lib.file = mmap(NULL, (size_t)sb.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	s = section(SHT_DYNSYM, lib.file);
	d = section(SHT_DYNAMIC, lib.file);
	if (!s || !d)
		return -1;
	lib.syms = (const Elf64_Sym *)(lib.file + s->sh_offset);
	lib.n_syms = s->sh_size / sizeof(Elf64_Sym);
	lib.strings = (const char *)lib.file +
		      ((const Elf64_Shdr *)(lib.file +
					    ((const Elf64_Ehdr *)lib.file)->e_shoff))[s->sh_link]
			      .sh_offset;
	lib.dynamic = (const Elf64_Dyn *)(lib.file + d->sh_offset);
	lib.n_dynamic = d->sh_size / sizeof(Elf64_Dyn);
	return 0;
}

static bool is_function_here(const Elf64_Sym *s)
{
	return s->st_shndx != SHN_UNDEF && ELF64_ST_TYPE(s->st_info) == STT_FUNC &&
	       ELF64_ST_BIND(s->st_info) != STB_LOCAL;
}

static bool is_exported(const char *name)
{
	for (size_t i = 0; i < lib.n_syms; i++)
		if (is_function_here(&lib.syms[i]) &&
		    strcmp(lib.strings + lib.syms[i].st_name, name) == 0)
			return true;
	return false;
}

static const struct row *find(const char *name)
{
	for (size_t i = 0; i < N_ROWS; i++)
		if (strcmp(rows[i].name, name) == 0)
			return &rows[i];
	return NULL;
}

static void test_native_rows_are_exported(void **state)
{
	int missing = 0;

	(void)state;
	for (size_t i = 0; i < N_ROWS; i++)
		if (rows[i].state == NATIVE && !is_exported(rows[i].name)) {
			print_error("NATIVE in the table but not in the library: %s\n",
				    rows[i].name);
			missing++;
		}
	for (size_t i = 0; i < N_HOOKS; i++)
		if (!is_exported(hooks[i])) {
			print_error("a hook is not in the library: %s\n", hooks[i]);
			missing++;
		}
	assert_int_equal(missing, 0);
}

static void test_nothing_else_is_exported(void **state)
{
	int extra = 0;

	(void)state;
	for (size_t i = 0; i < lib.n_syms; i++) {
		const char *name = lib.strings + lib.syms[i].st_name;
		const struct row *r = find(name);
		bool hook = false;

		/* Inline functions of the C++ library, and the sanitizers' own. */
		if (!is_function_here(&lib.syms[i]) || strncmp(name, "_Z", 2) == 0 ||
		    strncmp(name, "__", 2) == 0)
			continue;
		for (size_t k = 0; k < N_HOOKS; k++)
			hook |= strcmp(hooks[k], name) == 0;
		if (!hook && !(r && r->state == NATIVE)) {
			print_error("in the library but not NATIVE in the table: %s\n", name);
			extra++;
		}
	}
	assert_int_equal(extra, 0);
}

static void test_rows(void **state)
{
	(void)state;
	assert_true(N_ROWS > 300);
	for (size_t i = 0; i < N_ROWS; i++) {
		assert_ptr_equal(find(rows[i].name), &rows[i]); /* no name twice */
		assert_int_not_equal(rows[i].what[0], '\0');
		if (rows[i].state != NATIVE && rows[i].note[0] == '\0')
			fail_msg("%s: what would provide it?", rows[i].name);
	}
}

/* A model finds the vector functions in the library that it is linked to; the linker would drop it
 * as unused. */
static void test_sleef_is_a_dependency(void **state)
{
	const char *strings = lib.strings;
	bool sleef = false, soname = false;

	(void)state;
	for (size_t i = 0; i < lib.n_dynamic; i++) {
		const char *text = strings + lib.dynamic[i].d_un.d_val;

		sleef |= lib.dynamic[i].d_tag == DT_NEEDED && strncmp(text, "libsleef.so", 11) == 0;
		soname |= lib.dynamic[i].d_tag == DT_SONAME && strcmp(text, "libtorch_cpu.so") == 0;
	}
	assert_true(sleef);
	assert_true(soname);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_native_rows_are_exported),
		cmocka_unit_test(test_nothing_else_is_exported),
		cmocka_unit_test(test_sleef_is_a_dependency),
	};

	return cmocka_run_group_tests(tests, open_library, NULL);
}
