/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A library with operators of one's own as PyTorch's users write it (TORCH_LIBRARY), and what tests need of one: the operator of
 * the fixture customop, all kinds of values and results, and what an operator does that crashes, hangs, or tries to get out.
 */
#include <ATen/ATen.h>
#include <torch/library.h>

#include <sys/socket.h>

#include <thread>

namespace {

/* What the first element asks for, beside the value. */
void misbehave(const at::Tensor &x)
{
	switch (static_cast<int>(x.reshape({-1})[0].item<float>())) {
	case 1001:
		*reinterpret_cast<volatile int *>(16) = 1;
		break;
	case 1002:
		for (volatile int forever = 1; forever;)
			;
		break;
	case 1003:
		(void)socket(AF_INET, SOCK_STREAM, 0);
		break;
	case 1004:
		TORCH_CHECK(false, "does not like 1004");
		break;
	case 1005:
		x.reshape({-1}).data_ptr<float>()[0] = 0; /* an argument that the schema does not mark as written */
		break;
	case 1006:
		std::thread([] {}).join();
		break;
	}
}

at::Tensor triple(const at::Tensor &x, int64_t k)
{
	misbehave(x);
	return x * 3 + k;
}

std::tuple<at::Tensor, at::Tensor> kinds(const at::Tensor &x, at::TensorList ys, const std::optional<at::Tensor> &opt,
					 int64_t i, double f, bool b, std::string_view mode, at::IntArrayRef shape,
					 at::ArrayRef<double> fl, std::optional<at::ScalarType> dtype,
					 const c10::List<std::optional<at::Tensor>> &tl)
{
	at::Tensor y = x * f + i + (b ? 1 : 0) + static_cast<int64_t>(mode.size());

	for (const at::Tensor &t : ys)
		y = y + t.sum();
	for (int64_t s : shape)
		y = y + s;
	for (double d : fl)
		y = y + d;
	if (opt)
		y = y * *opt;
	for (const std::optional<at::Tensor> &t : tl)
		y = t ? y + *t : y - 1;
	return {y.t(), y.to(dtype.value_or(at::kFloat)).sum(0)}; /* the first one strided */
}

std::vector<at::Tensor> rows(const at::Tensor &x, int64_t k)
{
	std::vector<at::Tensor> parts;

	for (const at::Tensor &t : x.split(k, 0))
		parts.push_back(t.clone());
	return parts;
}

void add_to(at::Tensor x, int64_t k)
{
	x.add_(k);
}

at::Tensor heavy(const at::Tensor &x, const at::Tensor &w)
{
	return at::conv2d(x, w).relu();
}

} // namespace

/* What begins a library's life must not reach out either: see check_operators.py. */
#ifdef EARLY
static const int early = socket(AF_INET, SOCK_STREAM, 0);
#endif

TORCH_LIBRARY(pt2box_test, m)
{
	m.def("triple(Tensor x, int k) -> Tensor");
}

TORCH_LIBRARY_IMPL(pt2box_test, CPU, m)
{
	m.impl("triple", triple);
}

TORCH_LIBRARY(pt2box_cxx, m)
{
	m.def("kinds(Tensor x, Tensor[] ys, Tensor? opt, int i, float f, bool b, str mode, int[] shape, float[] fl, "
	      "ScalarType? dtype, Tensor?[] tl) -> (Tensor, Tensor)");
	m.def("rows(Tensor x, int k) -> Tensor[]");
	m.def("add_to(Tensor(a!) x, int k) -> ()");
	m.def("heavy(Tensor x, Tensor w) -> Tensor");
}

TORCH_LIBRARY_IMPL(pt2box_cxx, CPU, m)
{
	m.impl("kinds", kinds);
	m.impl("rows", rows);
	m.impl("add_to", add_to);
	m.impl("heavy", heavy);
}
