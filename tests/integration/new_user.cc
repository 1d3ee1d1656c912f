// new_user.cc - a C++ program that knows nothing of Together; test_malloc compiles it and runs it with
// libtgmalloc.so preloaded, on a heap with a limit of 64 MiB.  Status 0: new and delete work in all forms.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <new>
#include <sstream>
#include <string>
#include <vector>

static int failures;

#define EXPECT(condition) \
	do { \
		if (!(condition)) { \
			std::printf("new_user.cc:%d: not so: %s\n", __LINE__, #condition); \
			failures++; \
		} \
	} while (0)

struct alignas(256) wide {
	char bytes[256];
};

static char *spare;
static int handled;

static void give_spare()
{
	handled++;
	delete[] spare;
	spare = nullptr;
	std::set_new_handler(nullptr);
}

static bool in_heap(const void *p)
{
	std::FILE *maps = std::fopen("/proc/self/maps", "r");
	char line[512];
	unsigned long from, to;
	bool found = false;

	while (maps && std::fgets(line, sizeof(line), maps)) {
		if (std::sscanf(line, "%lx-%lx", &from, &to) == 2 && (uintptr_t)p >= from && (uintptr_t)p < to)
			found = std::strstr(line, "memfd:tg-heap") != nullptr;
	}
	if (maps)
		std::fclose(maps);
	return found;
}

// Called through pointers that the compiler cannot see through.
static void forms()
{
	static const std::size_t sizes[] = {0, 1, 8, 16, 24, 100, 5000, 100000};
	std::align_val_t align{256};

	for (std::size_t size : sizes) {
		void *p[] = {::operator new(size), ::operator new[](size), ::operator new(size, std::nothrow),
			     ::operator new[](size, std::nothrow), ::operator new(size, align),
			     ::operator new[](size, align), ::operator new(size, align, std::nothrow),
			     ::operator new[](size, align, std::nothrow)};

		for (int i = 0; i < 8; i++) {
			EXPECT(p[i] != nullptr && in_heap(p[i]));
			EXPECT((uintptr_t)p[i] % (i < 4 ? 16 : 256) == 0);
			std::memset(p[i], i, size);
		}
		::operator delete(p[0]);
		::operator delete[](p[1]);
		::operator delete(p[2], size);
		::operator delete[](p[3], size);
		::operator delete(p[4], align);
		::operator delete[](p[5], align);
		::operator delete(p[6], size, align);
		::operator delete[](p[7], size, align);
		::operator delete(::operator new(size, std::nothrow), std::nothrow);
		::operator delete[](::operator new[](size, std::nothrow), std::nothrow);
		::operator delete(::operator new(size, align, std::nothrow), align, std::nothrow);
		::operator delete[](::operator new[](size, align, std::nothrow), align, std::nothrow);
	}
}

static void memory_runs_out()
{
	volatile std::size_t much = 1 << 30;
	bool thrown = false;

	try {
		spare = new char[much];
	} catch (const std::bad_alloc &) {
		thrown = true;
	}
	EXPECT(thrown);
	thrown = false;
	try {
		::operator delete(::operator new(much, std::align_val_t{64}), std::align_val_t{64});
	} catch (const std::bad_alloc &) {
		thrown = true;
	}
	EXPECT(thrown);
	EXPECT(::operator new(much, std::nothrow) == nullptr);

	// The handler finds memory, and new succeeds after all.
	spare = new char[40 << 20];
	std::set_new_handler(give_spare);
	delete[] new char[40 << 20];
	EXPECT(handled == 1 && spare == nullptr);
}

static void library()
{
	std::map<int, std::string> map;
	std::vector<std::unique_ptr<wide>> wides;
	std::ostringstream text;

	for (int i = 0; i < 20000; i++)
		map[i * 7919 % 20000] += std::to_string(i) + std::string(i % 50, 'x');
	for (int i = 0; i < 100; i++) {
		wides.emplace_back(new wide());
		EXPECT((uintptr_t)wides.back().get() % 256 == 0);
	}
	for (const auto &entry : map)
		text << entry.second;
	EXPECT(text.str().size() > 20000);
}

int main()
{
	forms();
	memory_runs_out();
	library();
	return failures == 0 ? 0 : 1;
}
