// Numbers the controls that one sees and that Tab ought to reach, and gives the beginning of each. A group of radio
// buttons is one control.
() => {
  const wanted = "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']";
  const visible = { visibilityProperty: true, opacityProperty: true };
  const found = {};
  document.querySelectorAll(wanted).forEach((one, place) => {
    if (!one.checkVisibility(visible) || one.tabIndex < 0 || one.disabled) return;
    one.dataset.control = one.type === "radio" ? `radio ${one.name}` : String(place);
    found[one.dataset.control] = one.outerHTML.slice(0, 120);
  });
  return found;
}
