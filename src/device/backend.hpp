// What the linked backend asks of the run that begins.
#pragma once

namespace red {

/// Throws ConfigError when this process cannot compute as one of so many ranks: without a GPU that the
/// program was made for, say. Before anything is allocated.
void require_backend(int num_ranks);

}  // namespace red
