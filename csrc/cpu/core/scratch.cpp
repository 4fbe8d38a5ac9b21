// The stack of each thread: blocks of memory, of which the lower ones are taken and the upper ones are
// free. A thread begins with small blocks.  Whenever its stack is empty and more than one block was needed,
// they give way to a single one of their whole size, so that after some calls every kernel finds its memory
// in one block.
#include "scratch.h"

#include <algorithm>
#include <cassert>
#include <vector>

namespace minicnn {
namespace {

constexpr std::size_t line = cache_line, least_block = 64 << 10;

struct Block {
    AlignedBytes data;
    std::size_t size = 0;

    explicit Block(std::size_t size) : data(aligned_bytes(size)), size(size) {}
};

struct Stack {
    std::vector<Block> blocks;
    std::size_t block = 0, used = 0;  // what is taken ends after so many bytes of this block
    std::size_t first = least_block;  // the least size of the first block
    Scratch* innermost = nullptr;

    // Makes room for so many bytes above what is taken.
    void reserve(std::size_t bytes) {
        if (blocks.empty()) blocks.emplace_back(std::max(bytes, first));
        if (used + bytes <= blocks[block].size) return;
        if (block + 1 == blocks.size()) {
            blocks.emplace_back(std::max(bytes, least_block));
        } else if (blocks[block + 1].size < bytes) {
            blocks.erase(blocks.begin() + static_cast<std::ptrdiff_t>(block) + 1, blocks.end());
            blocks.emplace_back(bytes);
        }
        ++block;
        used = 0;
    }

    void join_blocks() {
        if (blocks.size() < 2) return;
        first = 0;
        for (const Block& b : blocks) first += b.size;
        blocks.clear();
    }
};

thread_local Stack stack;

}  // namespace

Scratch::Scratch() : outer_(stack.innermost), block_(stack.block), used_(stack.used) {
    stack.innermost = this;
}

Scratch::~Scratch() {
    stack.innermost = outer_;
    stack.block = block_;
    stack.used = used_;
    if (!outer_) stack.join_blocks();
}

void* Scratch::take_bytes(std::size_t bytes) {
    assert(stack.innermost == this);
    const std::size_t needed = line + (bytes + line - 1) / line * line + line;
    stack.reserve(needed);
    char* data = stack.blocks[stack.block].data.get() + stack.used + line;
    stack.used += needed;
    return data;
}

}  // namespace minicnn
