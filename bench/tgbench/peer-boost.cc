/* peer-boost.cc - Boost.Interprocess: a managed_shared_memory as it comes (rbtree_best_fit, one mutex).
 *
 * Children are forked, so they have the segment at the same address, and pointers need no translation.  Its name is
 * removed at once: nothing is left behind.
 */
#include "bench/tgbench/peer.h"

#include <boost/interprocess/managed_shared_memory.hpp>
#include <cstring>
#include <new>
#include <string>
#include <unistd.h>

namespace ipc = boost::interprocess;

static ipc::managed_shared_memory *heap;

const char *tgb_peer_open(size_t bytes)
{
	const std::string name = "tgbench-" + std::to_string(getpid());

	try {
		ipc::shared_memory_object::remove(name.c_str());
		heap = new ipc::managed_shared_memory(ipc::create_only, name.c_str(), bytes);
		ipc::shared_memory_object::remove(name.c_str());
	} catch (const std::exception &e) {
		ipc::shared_memory_object::remove(name.c_str());
		return strdup(e.what());
	}
	return nullptr;
}

void tgb_peer_open_child(void)
{
}

void *tgb_peer_malloc(size_t size)
{
	return heap->allocate(size, std::nothrow);
}

void tgb_peer_free(void *object)
{
	if (object != nullptr)
		heap->deallocate(object);
}
