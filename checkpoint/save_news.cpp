#include "checkpoint/save_news.hpp"

#include "base/log.hpp"

namespace red::checkpoint {

std::shared_ptr<SaveNews> SaveNews::listen(parallel::NoticeBoard* board) {
  std::shared_ptr<SaveNews> news(new SaveNews(board));
  if (board == nullptr) return news;
  // The first to fail is told of; what the others met as well, all say together at the boundary.
  board->listen([news](const parallel::Notice& notice) {
    if (news->give_up(notice.subject)) log::warning("{}", notice.text);
  });
  return news;
}

void SaveNews::leave() {
  const std::lock_guard lock(mutex_);
  if (board_ != nullptr) board_->listen({});
  board_ = nullptr;
}

int32_t SaveNews::new_save() {
  const std::lock_guard lock(mutex_);
  return board_ != nullptr ? board_->new_subject() : ++last_save_;
}

bool SaveNews::give_up(int32_t save) {
  int32_t before = given_up_.load(std::memory_order_relaxed);
  while (before < save) {
    if (given_up_.compare_exchange_weak(before, save, std::memory_order_relaxed)) return true;
  }
  return false;
}

void SaveNews::tell(int32_t save, const std::string& text) {
  const std::lock_guard lock(mutex_);
  if (board_ != nullptr && !given_up(save)) board_->post(save, text);
}

}  // namespace red::checkpoint
