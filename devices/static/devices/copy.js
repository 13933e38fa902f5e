// A button with data-copy="id" puts that field's value on the clipboard; without a clipboard it selects it.
for (const button of document.querySelectorAll("[data-copy]")) {
  const field = document.getElementById(button.dataset.copy);
  field.addEventListener("focus", () => field.select());
  button.addEventListener("click", async () => {
    field.select();
    try {
      await navigator.clipboard.writeText(field.value);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Press Ctrl+C";
    }
  });
}

// The page answers a form. Loaded again it would send that form once more, and issue one more secret.
window.history.replaceState(null, "", window.location.href);
